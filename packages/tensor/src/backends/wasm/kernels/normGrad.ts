import type { View } from "../../../backend.ts";
import type { OpAttrs } from "../../../op.ts";
import { at, op } from "../asm/expression.ts";
import { type Engine, type ModuleDefinition, addressOf, rowsOf } from "../engine.ts";
import { Vectors } from "../vectors.ts";
import { centredMoments, inverseRoot } from "./norm.ts";
import { forRows, span } from "./rowwise.ts";

/** (g·w − z·mean(g·w·z))·scale with z = x·scale, scale = 1 / √(mean x² + eps). x, g and out [rows, width], w [width], float32. */
export function rmsNormGrad(
  engine: Engine,
  out: View,
  [x, weight, g]: readonly View[],
  { eps }: OpAttrs["rmsNormGrad"],
): void {
  const [items, width] = rowsOf(x!);
  const args = [addressOf(out), addressOf(x!), addressOf(weight!), addressOf(g!), width, eps];
  engine.run(NORM_GRAD, "rmsNormGrad", args, { items, work: 8 * width });
}

/** (g·w − mean(g·w) − z·mean(g·w·z))·scale with z = (x − mean)·scale, scale = 1 / √(variance + eps). */
export function layerNormGrad(
  engine: Engine,
  out: View,
  [x, weight, g]: readonly View[],
  { eps }: OpAttrs["layerNormGrad"],
): void {
  const [items, width] = rowsOf(x!);
  const args = [addressOf(out), addressOf(x!), addressOf(weight!), addressOf(g!), width, eps];
  engine.run(NORM_GRAD, "layerNormGrad", args, { items, work: 10 * width });
}

const PARAMS = { out: "i32", x: "i32", weight: "i32", g: "i32", width: "i32", eps: "f32" } as const;
/** Three loads and up to three accumulators for each of four vectors would not fit 15 registers. */
const WIDTH = 2;

const NORM_GRAD: ModuleDefinition = {
  build(m, { madd }) {
    m.kernel("rmsNormGrad", PARAMS, (f, { out, x, weight, g, width, eps, from, to }) => {
      const v = new Vectors(f, WIDTH, madd);
      forRows(f, from, to, width, (row, bytes) => {
        const { p, end } = span(f, x, row, bytes);
        const q = f.local("i32", at(g, row, bytes));
        const w = f.local("i32", weight);
        const [squares, dots] = [v.zeros(), v.zeros()];
        v.walk(p, end, [q, w], (u) => {
          const a = u.load(p);
          u.assign(squares, u.madd(a, a, squares));
          u.assign(dots, u.madd(u.mul(u.load(q), u.load(w)), a, dots));
        });
        const n = f.local("f32", op("f32.convert_i32_s", width));
        const factor = f.local("f32", inverseRoot(v.total(squares), width, eps));
        const along = v.splat(op("f32.mul", op("f32.mul", factor, factor), op("f32.div", v.total(dots), n)));
        const scale = v.splat(factor);
        f.set(p, at(x, row, bytes));
        f.set(q, at(g, row, bytes));
        f.set(w, weight);
        const y = f.local("i32", at(out, row, bytes));
        v.walk(p, end, [q, w, y], (u) =>
          u.store(y, u.mul(scale, u.nmadd(u.load(p), along, u.mul(u.load(q), u.load(w))))),
        );
      });
    });
    m.kernel("layerNormGrad", PARAMS, (f, { out, x, weight, g, width, eps, from, to }) => {
      const v = new Vectors(f, WIDTH, madd);
      forRows(f, from, to, width, (row, bytes) => {
        const { p, end } = span(f, x, row, bytes);
        const q = f.local("i32", at(g, row, bytes));
        const w = f.local("i32", weight);
        const n = f.local("f32", op("f32.convert_i32_s", width));
        const [sums, sumsOfGradient] = [v.zeros(), v.zeros()];
        v.walk(p, end, [q, w], (u) => {
          u.assign(sums, u.add(u.load(p), sums));
          u.assign(sumsOfGradient, u.madd(u.load(q), u.load(w), sumsOfGradient));
        });
        const mean = v.splat(op("f32.div", v.total(sums), n));
        const gradientMean = f.local("f32", op("f32.div", v.total(sumsOfGradient), n));
        const meanOfGradient = v.splat(gradientMean);
        f.set(p, at(x, row, bytes));
        f.set(q, at(g, row, bytes));
        f.set(w, weight);
        const [squares, rests, dots] = [v.zeros(), v.zeros(), v.zeros()];
        v.walk(p, end, [q, w], (u) => {
          const centred = u.inRow(u.sub(u.load(p), mean));
          u.assign(squares, u.madd(centred, centred, squares));
          u.assign(rests, u.add(centred, rests));
          u.assign(dots, u.madd(u.mul(u.load(q), u.load(w)), centred, dots));
        });
        const moments = centredMoments(f, v.total(squares), v.total(rests), n);
        const factor = f.local("f32", inverseRoot(moments.squares, width, eps));
        const meanOfDots = op("f32.sub", op("f32.div", v.total(dots), n), op("f32.mul", moments.rest, gradientMean));
        const along = v.splat(op("f32.mul", op("f32.mul", factor, factor), meanOfDots));
        const scale = v.splat(factor);
        const rest = v.splat(moments.rest);
        f.set(p, at(x, row, bytes));
        f.set(q, at(g, row, bytes));
        f.set(w, weight);
        const y = f.local("i32", at(out, row, bytes));
        v.walk(p, end, [q, w, y], (u) => {
          const gradient = u.sub(u.mul(u.load(q), u.load(w)), meanOfGradient);
          u.store(y, u.mul(scale, u.nmadd(u.sub(u.sub(u.load(p), mean), rest), along, gradient)));
        });
      });
    });
  },
};
