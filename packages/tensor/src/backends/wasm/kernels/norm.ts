import type { View } from "../../../backend.ts";
import type { OpAttrs } from "../../../op.ts";
import { type Expr, at, op } from "../asm/expression.ts";
import type { FunctionBuilder } from "../asm/function.ts";
import { type Engine, type ModuleDefinition, addressOf, rowsOf } from "../engine.ts";
import { Vectors } from "../vectors.ts";
import { forRows, span } from "./rowwise.ts";

/** x / √(mean x² + eps) · weight for each row; x and out [rows, width], weight [width], float32. */
export function rmsNorm(engine: Engine, out: View, [x, weight]: readonly View[], { eps }: OpAttrs["rmsNorm"]): void {
  const [items, width] = rowsOf(x!);
  const args = [addressOf(out), addressOf(x!), addressOf(weight!), width, eps];
  engine.run(NORM, "rmsNorm", args, { items, work: 4 * width });
}

/** (x − mean) / √(variance + eps) · weight + bias for each row. */
export function layerNorm(
  engine: Engine,
  out: View,
  [x, weight, bias]: readonly View[],
  { eps }: OpAttrs["layerNorm"],
): void {
  const [items, width] = rowsOf(x!);
  const args = [addressOf(out), addressOf(x!), addressOf(weight!), addressOf(bias!), width, eps];
  engine.run(NORM, "layerNorm", args, { items, work: 6 * width });
}

const NORM: ModuleDefinition = {
  build(m, { madd }) {
    m.kernel(
      "rmsNorm",
      { out: "i32", x: "i32", weight: "i32", width: "i32", eps: "f32" },
      (f, { out, x, weight, width, eps, from, to }) => {
        const v = new Vectors(f, 4, madd);
        forRows(f, from, to, width, (row, bytes) => {
          const { p, end } = span(f, x, row, bytes);
          const squares = v.zeros();
          v.walk(p, end, [], (u) => {
            const a = u.load(p);
            u.assign(squares, u.madd(a, a, squares));
          });
          const scale = v.splat(inverseRoot(v.total(squares), width, eps));
          f.set(p, at(x, row, bytes));
          const y = f.local("i32", at(out, row, bytes));
          const w = f.local("i32", weight);
          v.walk(p, end, [y, w], (u) => u.store(y, u.mul(u.mul(u.load(p), scale), u.load(w))));
        });
      },
    );
    m.kernel(
      "layerNorm",
      { out: "i32", x: "i32", weight: "i32", bias: "i32", width: "i32", eps: "f32" },
      (f, { out, x, weight, bias, width, eps, from, to }) => {
        const v = new Vectors(f, 4, madd);
        forRows(f, from, to, width, (row, bytes) => {
          const { p, end } = span(f, x, row, bytes);
          const sums = v.zeros();
          v.walk(p, end, [], (u) => u.assign(sums, u.add(u.load(p), sums)));
          const n = f.local("f32", op("f32.convert_i32_s", width));
          const mean = v.splat(op("f32.div", v.total(sums), n));
          f.set(p, at(x, row, bytes));
          const [squares, rests] = [v.zeros(), v.zeros()];
          v.walk(p, end, [], (u) => {
            const centred = u.inRow(u.sub(u.load(p), mean));
            u.assign(squares, u.madd(centred, centred, squares));
            u.assign(rests, u.add(centred, rests));
          });
          const moments = centredMoments(f, v.total(squares), v.total(rests), n);
          const scale = v.splat(inverseRoot(moments.squares, width, eps));
          const rest = v.splat(moments.rest);
          f.set(p, at(x, row, bytes));
          const y = f.local("i32", at(out, row, bytes));
          const [w, b] = [f.local("i32", weight), f.local("i32", bias)];
          v.walk(p, end, [y, w, b], (u) =>
            u.store(y, u.madd(u.mul(u.sub(u.sub(u.load(p), mean), rest), scale), u.load(w), u.load(b))),
          );
        });
      },
    );
  },
};

/**
 * What rounding the mean left behind: the mean `rest` of the centred numbers, and the sum of their squares about it. Without it a row
 * of equal numbers would not be centred at 0. The corrected two-pass algorithm of Chan, Golub and LeVeque, "Algorithms for computing
 * the sample variance" (1983).
 */
export function centredMoments(f: FunctionBuilder, squares: Expr, rests: Expr, n: Expr): { squares: Expr; rest: Expr } {
  const sum = f.local("f32", rests);
  const rest = f.local("f32", op("f32.div", sum, n));
  return { rest, squares: op("f32.max", 0, op("f32.sub", squares, op("f32.mul", sum, rest))) };
}

/** 1 / √(squares / width + eps) */
export const inverseRoot = (squares: Expr, width: Expr, eps: Expr): Expr =>
  op("f32.div", 1, op("f32.sqrt", op("f32.add", op("f32.div", squares, op("f32.convert_i32_s", width)), eps)));
