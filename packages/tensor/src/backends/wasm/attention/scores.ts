import { at, f32x4, i32, load, op } from "../asm/expression.ts";
import type { Local } from "../asm/function.ts";
import type { Callee, ModuleBuilder } from "../asm/module.ts";
import { expOfNegative, tanh } from "../vectorMath.ts";
import { type Lanes, Vectors } from "../vectors.ts";
import { ROW } from "./panels.ts";

/**
 * (panel, n, out): panel[s, i] = exp(panel[s, i] − max over s) in place for n rows; out[i] = 1 / Σ over s, in ascending order.
 * Uses one row beyond n.
 */
export function buildSoftmax(m: ModuleBuilder, madd: boolean): Callee {
  return m.function(["i32", "i32", "i32"], (f, ...params) => {
    const [panel, n, out] = params as [Local, Local, Local];
    const v = new Vectors(f, 4, madd); // two rows
    const p = f.local("i32", at(panel, n, i32(ROW)));
    // a row that adds nothing makes their number even
    const lowest = v.constant(-Infinity);
    for (const half of [0, 16]) f.store("v128.store", p, lowest[0]!, half);
    const end = f.local("i32", at(panel, op("i32.and", op("i32.add", n, 1), -2), ROW));
    const largest = v.each((i) => lowest[i]!);
    f.set(p, panel);
    f.while(p, end, 2 * ROW, [], () => v.assign(largest, v.apply("f32x4.pmax", largest, v.load(p))));
    const max = [0, 1].map((i) => f.local("v128", op("f32x4.pmax", largest[i]!, largest[i + 2]!)));
    const maxima: Lanes = [...max, ...max];
    const sums = [0, 1].map(() => f.local("v128", f32x4(0)));
    f.set(p, panel);
    f.while(p, end, 2 * ROW, [], () => {
      const y = expOfNegative(v, v.sub(v.load(p), maxima));
      v.store(p, y);
      y.forEach((x, i) => f.set(sums[i % 2]!, op("f32x4.add", sums[i % 2]!, x)));
    });
    const one = v.constant(1)[0]!;
    sums.forEach((sum, i) => f.store("v128.store", out, op("f32x4.div", one, sum), 16 * i));
  });
}

/** (x, n, softcap, tanhs): tanhs[i] = tanh x[i], then x[i] = softcap·tanhs[i], for n numbers; both may be one. */
export function buildCap(m: ModuleBuilder, madd: boolean): Callee {
  return m.function(["i32", "i32", "f32", "i32"], (f, ...params) => {
    const [x, n, softcap, tanhs] = params as [Local, Local, Local, Local];
    const v = new Vectors(f, 4, madd);
    const cap = v.splat(softcap);
    const end = f.local("i32", at(x, n, i32(4)));
    v.walk(x, end, [tanhs], (u) => {
      const t = tanh(u, u.load(x));
      u.store(tanhs, t);
      u.store(x, u.mul(t, cap));
    });
  });
}

/** (slopes, n, tanhs): slopes[s, i] ·= 1 − tanhs[s, i]² for n rows. */
export function buildCapSlopes(m: ModuleBuilder, madd: boolean): Callee {
  return m.function(["i32", "i32", "i32"], (f, ...params) => {
    const [slopes, n, tanhs] = params as [Local, Local, Local];
    const v = new Vectors(f, 4, madd);
    const end = f.local("i32", at(slopes, n, i32(ROW)));
    v.walk(slopes, end, [tanhs], (u) => {
      const t = u.load(tanhs);
      u.store(slopes, u.mul(u.load(slopes), u.nmadd(t, t, u.constant(1))));
    });
  });
}

/** (weights, n, factors): weights[s, i] ·= factors[i] for n rows. */
export function buildNormalize(m: ModuleBuilder, madd: boolean): Callee {
  return m.function(["i32", "i32", "i32"], (f, ...params) => {
    const [weights, n, factors] = params as [Local, Local, Local];
    const v = new Vectors(f, 2, madd);
    const factor = v.each((i) => load("v128.load", factors, 16 * i));
    const end = f.local("i32", at(weights, n, i32(ROW)));
    f.while(weights, end, ROW, [], () => v.store(weights, v.mul(v.load(weights), factor)));
  });
}

/**
 * (weights, slopes, n): slopes[s, i] = weights[s, i]·(slopes[s, i] − Σ over s of weights·slopes) in place for n rows: the gradient of a
 * softmax whose result is weights.
 */
export function buildSlopes(m: ModuleBuilder, madd: boolean): Callee {
  return m.function(["i32", "i32", "i32"], (f, ...params) => {
    const [weights, slopes, n] = params as [Local, Local, Local];
    const v = new Vectors(f, 2, madd);
    const end = f.local("i32", at(weights, n, i32(ROW)));
    const mean = v.zeros();
    const [p, q] = [f.local("i32", weights), f.local("i32", slopes)];
    f.while(p, end, ROW, [q], () => v.assign(mean, v.madd(v.load(p), v.load(q), mean)));
    f.while(weights, end, ROW, [slopes], () => v.store(slopes, v.mul(v.load(weights), v.sub(v.load(slopes), mean))));
  });
}
