import type { View } from "../../../backend.ts";
import { IndexError } from "../../../errors.ts";
import type { OpAttrs } from "../../../op.ts";
import { dataOf } from "../../hostMemory.ts";
import { float32 } from "./float32.ts";
import { logSumExp } from "./softmax.ts";

export function crossEntropy(
  out: View,
  [logits, targets]: readonly View[],
  { ignoreIndex }: OpAttrs["crossEntropy"],
): void {
  const [N, V] = logits!.layout.shape as [number, number];
  const x = float32(logits!);
  const target = dataOf(targets!.buffer).subarray(targets!.layout.offset);
  let total = 0;
  let counted = 0;
  for (let i = 0; i < N; i++) {
    const t = target[i]!;
    if (t === ignoreIndex) continue;
    if (t < 0 || t >= V) throw new IndexError("crossEntropy", `targets must be in [0, ${V}) or ${ignoreIndex}`, t);
    total += logSumExp(x, i * V, V) - x[i * V + t]!;
    counted++;
  }
  float32(out)[0] = total / counted;
}
