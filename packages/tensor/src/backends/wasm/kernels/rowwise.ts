import { type Expr, add, at, f32x4, mul } from "../asm/expression.ts";
import type { FunctionBuilder, Local } from "../asm/function.ts";
import { expOfNegative } from "../vectorMath.ts";
import type { Lanes, Vectors } from "../vectors.ts";

/** Runs `body` for each row of [from, to); `bytes` is the size of a row of `width` float32. */
export function forRows(
  f: FunctionBuilder,
  from: Expr,
  to: Expr,
  width: Expr,
  body: (row: Local, bytes: Local) => void,
): void {
  const bytes = f.local("i32", mul(width, 4));
  const row = f.local("i32");
  f.for(row, from, to, 1, () => body(row, bytes));
}

/** Where row `row` of x begins, to walk with, and ends. */
export function span(f: FunctionBuilder, x: Expr, row: Expr, bytes: Expr): { readonly p: Local; readonly end: Local } {
  const p = f.local("i32", at(x, row, bytes));
  return { p, end: f.local("i32", add(p, bytes)) };
}

/** The largest of the float32 in [p, end) in all lanes, NaN left out, −Infinity when there is none; p moves to the end. */
export function largestOf(v: Vectors, p: Local, end: Expr): Lanes {
  const largest = v.each(() => f32x4(-Infinity));
  v.walk(p, end, [], (u) => u.assign(largest, u.apply("f32x4.pmax", largest, u.load(p, { fill: -Infinity }))));
  return v.splat(v.largest(largest));
}

/** out[row] = exp(x[row] − max x[row]); returns the sum of the row, as f32. */
export function exponentials(v: Vectors, out: Expr, x: Expr, row: Expr, bytes: Expr): Expr {
  const { f } = v;
  const { p, end } = span(f, x, row, bytes);
  const largest = largestOf(v, p, end);
  f.set(p, at(x, row, bytes));
  const y = f.local("i32", at(out, row, bytes));
  const sums = v.zeros();
  v.walk(p, end, [y], (u) => {
    const e = shiftedExp(u, p, largest);
    u.store(y, e);
    u.assign(sums, u.add(sums, e));
  });
  return v.total(sums);
}

/** out[row] *= factor, an f32. */
export function scaleRow(v: Vectors, out: Expr, row: Expr, bytes: Expr, factor: Expr): void {
  const lanes = v.splat(factor);
  const { p, end } = span(v.f, out, row, bytes);
  v.walk(p, end, [], (u) => u.store(p, u.mul(u.load(p), lanes)));
}

/** exp(x − largest) of what lies at p, 0 beyond the end of the row; NaN where x is, or everywhere when `largest` is infinite. */
export const shiftedExp = (v: Vectors, p: Local, largest: Lanes): Lanes =>
  expOfNegative(v, v.sub(v.load(p, { fill: -Infinity }), largest));
