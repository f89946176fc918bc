import type { View } from "../../../backend.ts";
import { at, op } from "../asm/expression.ts";
import { type Engine, type ModuleDefinition, addressOf, rowsOf } from "../engine.ts";
import { exp } from "../vectorMath.ts";
import { Vectors } from "../vectors.ts";
import { exponentials, forRows, largestOf, scaleRow, shiftedExp, span } from "./rowwise.ts";

/** What an element costs, in multiply-adds. */
const WORK = 16;

/** exp(x − max) / Σ exp(x − max) for each row; x and out [rows, width], float32. */
export function softmax(engine: Engine, out: View, [x]: readonly View[]): void {
  run(engine, "softmax", out, [x!]);
}
/** x − max − log Σ exp(x − max) for each row. */
export function logSoftmax(engine: Engine, out: View, [x]: readonly View[]): void {
  run(engine, "logSoftmax", out, [x!]);
}
/** y·(g − Σ g·y) for each row. */
export function softmaxGrad(engine: Engine, out: View, [y, g]: readonly View[]): void {
  run(engine, "softmaxGrad", out, [y!, g!]);
}
/** g − exp(y)·Σ g for each row. */
export function logSoftmaxGrad(engine: Engine, out: View, [y, g]: readonly View[]): void {
  run(engine, "logSoftmaxGrad", out, [y!, g!]);
}

function run(engine: Engine, name: string, out: View, inputs: readonly View[]): void {
  const [items, width] = rowsOf(out);
  engine.run(SOFTMAX, name, [addressOf(out), ...inputs.map(addressOf), width], { items, work: WORK * width });
}

const SOFTMAX: ModuleDefinition = {
  math: ["log"],
  build(m, { madd }) {
    m.kernel("softmax", { out: "i32", x: "i32", width: "i32" }, (f, { out, x, width, from, to }) => {
      const v = new Vectors(f, 4, madd);
      forRows(f, from, to, width, (row, bytes) => {
        scaleRow(v, out, row, bytes, op("f32.div", 1, exponentials(v, out, x, row, bytes)));
      });
    });
    m.kernel("logSoftmax", { out: "i32", x: "i32", width: "i32" }, (f, { out, x, width, from, to }) => {
      const v = new Vectors(f, 4, madd);
      forRows(f, from, to, width, (row, bytes) => {
        const { p, end } = span(f, x, row, bytes);
        const largest = largestOf(v, p, end);
        f.set(p, at(x, row, bytes));
        const sums = v.zeros();
        v.walk(p, end, [], (u) => u.assign(sums, u.add(sums, shiftedExp(u, p, largest))));
        const log = v.splat(m.math("log", v.total(sums)));
        f.set(p, at(x, row, bytes));
        const y = f.local("i32", at(out, row, bytes));
        v.walk(p, end, [y], (u) => u.store(y, u.sub(u.sub(u.load(p), largest), log)));
      });
    });
    m.kernel("softmaxGrad", { out: "i32", y: "i32", g: "i32", width: "i32" }, (f, { out, y, g, width, from, to }) => {
      const v = new Vectors(f, 4, madd);
      forRows(f, from, to, width, (row, bytes) => {
        const { p, end } = span(f, y, row, bytes);
        const q = f.local("i32", at(g, row, bytes));
        const sums = v.zeros();
        v.walk(p, end, [q], (u) => u.assign(sums, u.madd(u.load(p), u.load(q), sums)));
        const total = v.splat(v.total(sums));
        f.set(p, at(y, row, bytes));
        f.set(q, at(g, row, bytes));
        const z = f.local("i32", at(out, row, bytes));
        v.walk(p, end, [q, z], (u) => u.store(z, u.mul(u.load(p), u.sub(u.load(q), total))));
      });
    });
    m.kernel(
      "logSoftmaxGrad",
      { out: "i32", y: "i32", g: "i32", width: "i32" },
      (f, { out, y, g, width, from, to }) => {
        const v = new Vectors(f, 4, madd);
        forRows(f, from, to, width, (row, bytes) => {
          const { p: q, end } = span(f, g, row, bytes);
          const sums = v.zeros();
          v.walk(q, end, [], (u) => u.assign(sums, u.add(sums, u.load(q))));
          const total = v.splat(v.total(sums));
          f.set(q, at(g, row, bytes));
          const p = f.local("i32", at(y, row, bytes));
          const z = f.local("i32", at(out, row, bytes));
          v.walk(q, end, [p, z], (u) => u.store(z, u.nmadd(exp(u, u.load(p)), total, u.load(q))));
        });
      },
    );
  },
};
