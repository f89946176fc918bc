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
  const { ids, counted } = targetsOf("crossEntropy", targets!, V, ignoreIndex);
  const x = float32(logits!);
  let total = 0;
  for (let i = 0; i < N; i++) if (ids[i] !== ignoreIndex) total += logSumExp(x, i * V, V) - x[i * V + ids[i]!]!;
  float32(out)[0] = total / counted;
}

export function crossEntropyGrad(
  out: View,
  [logits, targets, g]: readonly View[],
  { ignoreIndex }: OpAttrs["crossEntropyGrad"],
): void {
  const [N, V] = logits!.layout.shape as [number, number];
  const { ids, counted } = targetsOf("crossEntropyGrad", targets!, V, ignoreIndex);
  const [y, x] = [float32(out), float32(logits!)];
  const share = float32(g!)[0]! / counted;
  for (let i = 0, row = 0; i < N; i++, row += V) {
    if (ids[i] === ignoreIndex) {
      y.fill(0, row, row + V);
      continue;
    }
    const total = logSumExp(x, row, V);
    for (let j = row; j < row + V; j++) y[j] = Math.exp(x[j]! - total) * share;
    const hit = row + ids[i]!;
    y[hit] = (Math.exp(x[hit]! - total) - 1) * share;
  }
}

/** The targets and how many of them are not `ignoreIndex`. Throws IndexError for one outside [0, V). */
export function targetsOf(
  op: string,
  { buffer, layout }: View,
  V: number,
  ignoreIndex: number,
): { readonly ids: Int32Array; readonly counted: number } {
  const ids = dataOf(buffer).subarray(layout.offset, layout.offset + layout.shape[0]!) as Int32Array;
  let counted = 0;
  for (const id of ids) {
    if (id === ignoreIndex) continue;
    if (id < 0 || id >= V) throw new IndexError(op, `targets must be in [0, ${V}) or ${ignoreIndex}`, id);
    counted++;
  }
  return { ids, counted };
}
