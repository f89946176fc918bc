import type { View } from "../../../backend.ts";
import type { OpAttrs } from "../../../op.ts";
import { targetsOf } from "../../cpu/fused/crossEntropy.ts";
import { dataOf } from "../../hostMemory.ts";
import { add, at, f32, lane, load, mul, op } from "../asm/expression.ts";
import { type Engine, type ModuleDefinition, addressOf } from "../engine.ts";
import { Vectors } from "../vectors.ts";
import { exponentials, forRows, largestOf, scaleRow, shiftedExp, span } from "./rowwise.ts";

/** What an element costs, in multiply-adds. */
const WORK = 16;

/** The mean of log Σ exp(logits) − logits[target] over the rows that count. logits [N, V] float32, targets [N] int32 → []. */
export function crossEntropy(
  engine: Engine,
  out: View,
  [logits, targets]: readonly View[],
  { ignoreIndex }: OpAttrs["crossEntropy"],
): void {
  const [items, V] = logits!.layout.shape as [number, number];
  const { counted } = targetsOf("crossEntropy", targets!, V, ignoreIndex);
  engine.withTemporary(0, items, (losses) => {
    const args = [losses, addressOf(logits!), addressOf(targets!), V, ignoreIndex];
    engine.run(LOSS, "crossEntropy", args, { items, work: WORK * V });
    const { f32 } = engine.heap.memories[0]!;
    let total = 0;
    for (let i = 0; i < items; i++) total += f32[(losses >>> 2) + i]!;
    dataOf(out.buffer)[out.layout.offset] = total / counted;
  });
}

/** (softmax(logits) − one-hot targets)·g / counted rows; 0 in ignored rows. g [] → [N, V]. */
export function crossEntropyGrad(
  engine: Engine,
  out: View,
  [logits, targets, g]: readonly View[],
  { ignoreIndex }: OpAttrs["crossEntropyGrad"],
): void {
  const [items, V] = logits!.layout.shape as [number, number];
  const { counted } = targetsOf("crossEntropyGrad", targets!, V, ignoreIndex);
  const share = dataOf(g!.buffer)[g!.layout.offset]! / counted;
  const args = [addressOf(out), addressOf(logits!), addressOf(targets!), V, ignoreIndex, share];
  engine.run(LOSS, "crossEntropyGrad", args, { items, work: WORK * V });
}

const LOSS: ModuleDefinition = {
  math: ["log"],
  build(m, { madd }) {
    m.kernel(
      "crossEntropy",
      { losses: "i32", x: "i32", targets: "i32", width: "i32", ignoreIndex: "i32" },
      (f, { losses, x, targets, width, ignoreIndex, from, to }) => {
        const v = new Vectors(f, 4, madd);
        forRows(f, from, to, width, (row, bytes) => {
          const target = f.local("i32", load("i32.load", at(targets, row, 4)));
          const loss = f.local("f32", f32(0));
          f.if(op("i32.ne", target, ignoreIndex), () => {
            const { p, end } = span(f, x, row, bytes);
            const largest = largestOf(v, p, end);
            f.set(p, at(x, row, bytes));
            const sums = v.zeros();
            v.walk(p, end, [], (u) => u.assign(sums, u.add(sums, shiftedExp(u, p, largest))));
            const picked = load("f32.load", add(at(x, row, bytes), mul(target, 4)));
            f.set(loss, op("f32.sub", m.math("log", v.total(sums)), op("f32.sub", picked, lane(largest[0]!, 0))));
          });
          f.store("f32.store", at(losses, row, 4), loss);
        });
      },
    );
    m.kernel(
      "crossEntropyGrad",
      { out: "i32", x: "i32", targets: "i32", width: "i32", ignoreIndex: "i32", share: "f32" },
      (f, { out, x, targets, width, ignoreIndex, share, from, to }) => {
        const v = new Vectors(f, 4, madd);
        forRows(f, from, to, width, (row, bytes) => {
          const target = f.local("i32", load("i32.load", at(targets, row, 4)));
          const ignored = (): void => f.zero(at(out, row, bytes), bytes);
          f.if(op("i32.eq", target, ignoreIndex), ignored, () => {
            scaleRow(v, out, row, bytes, op("f32.div", share, exponentials(v, out, x, row, bytes)));
            const hit = f.local("i32", add(at(out, row, bytes), mul(target, 4)));
            f.store("f32.store", hit, op("f32.sub", load("f32.load", hit), share));
          });
        });
      },
    );
  },
};
