import { BYTES_PER_ELEMENT } from "../../../dtype.ts";
import { type Expr, add, at, i32, mul, op, shuffle, sub } from "../asm/expression.ts";
import type { FunctionBuilder, Local } from "../asm/function.ts";
import type { Callee, ModuleBuilder } from "../asm/module.ts";
import { type FloatDType, loadFour, loadOne } from "../widening.ts";

/** How a matrix lies in memory, seen from its panels: along k, along the panel, or neither. */
export type Order = "alongK" | "alongPanel" | "strided";

/**
 * A function (to, from, panelStep, kStep, k, count) that packs a panel as float32 [k][width]: to[p·width + r] = from[r·panelStep + p·kStep],
 * steps in bytes; elements count … width − 1 of each step become 0.
 */
export function packer(m: ModuleBuilder, width: number, dtype: FloatDType, order: Order): Callee {
  const params = ["i32", "i32", "i32", "i32", "i32", "i32"] as const;
  if (order === "alongK") return m.function(params, (f, ...args) => packTransposed(f, width, dtype, args));
  if (order === "alongPanel") return m.function(params, (f, ...args) => packRows(f, width, dtype, args));
  return m.function(params, (f, ...args) => {
    const [to, from, panelStep, kStep, k, count] = args as Params;
    zeroUnlessFull(f, width, to, k, count);
    packScalar(f, width, dtype, { to, from, panelStep, kStep, k, first: i32(0), count });
  });
}

type Params = [to: Local, from: Local, panelStep: Local, kStep: Local, k: Local, count: Local];

function zeroUnlessFull(f: FunctionBuilder, width: number, to: Local, k: Local, count: Local): void {
  f.if(op("i32.lt_s", count, width), () => f.zero(to, mul(k, 4 * width)));
}

/** Elements first … count − 1 of every step, one by one. */
function packScalar(
  f: FunctionBuilder,
  width: number,
  dtype: FloatDType,
  {
    to,
    from,
    panelStep,
    kStep,
    k,
    first,
    count,
  }: Record<"to" | "from" | "panelStep" | "kStep" | "k" | "first" | "count", Expr>,
): void {
  const [r, p, source, target] = f.locals(4, "i32") as [Local, Local, Local, Local];
  f.for(r, first, count, 1, () => {
    f.set(source, at(from, r, panelStep));
    f.set(target, at(to, r, i32(4)));
    f.for(p, 0, k, 1, () => {
      f.storeLane("v128.store32_lane", target, loadOne(f, dtype, source), 0);
      f.advance(source, kStep);
      f.advance(target, 4 * width);
    });
  });
}

/** k is contiguous: blocks of 4 elements of the panel × 4 steps, transposed in registers. */
function packTransposed(f: FunctionBuilder, width: number, dtype: FloatDType, args: readonly Local[]): void {
  const [to, from, panelStep, kStep, k, count] = args as Params;
  const bytes = BYTES_PER_ELEMENT[dtype];
  const [r, p, target, wholeCount, wholeK] = f.locals(5, "i32") as [Local, Local, Local, Local, Local];
  const sources = f.locals(4, "i32");
  const x = f.locals(4, "v128");
  const t = f.locals(4, "v128");
  zeroUnlessFull(f, width, to, k, count);
  f.set(wholeCount, op("i32.and", count, -4));
  f.set(wholeK, op("i32.and", k, -4));
  f.for(r, 0, wholeCount, 4, () => {
    sources.forEach((source, i) => f.set(source, i === 0 ? at(from, r, panelStep) : add(sources[i - 1]!, panelStep)));
    f.set(target, at(to, r, i32(4)));
    f.for(p, 0, wholeK, 4, () => {
      x.forEach((lanes, i) => f.set(lanes, loadFour(f, dtype, sources[i]!)));
      transposed(f, x, t).forEach((lanes, i) => f.store("v128.store", target, lanes, 4 * width * i));
      for (const source of sources) f.advance(source, 4 * bytes);
      f.advance(target, 16 * width);
    });
    f.for(p, wholeK, k, 1, () => {
      sources.forEach((source, i) => {
        f.storeLane("v128.store32_lane", target, loadOne(f, dtype, source), 0, 4 * i);
        f.advance(source, bytes);
      });
      f.advance(target, 4 * width);
    });
  });
  packScalar(f, width, dtype, { to, from, panelStep, kStep, k, first: wholeCount, count });
}

/** The transpose of the 4 × 4 matrix in `x`, using `t` on the way. */
export function transposed(f: FunctionBuilder, x: readonly Local[], t: readonly Local[]): Expr[] {
  const [a, b, c, d] = x as [Local, Local, Local, Local];
  const [lowAB, highAB, lowCD, highCD] = t as [Local, Local, Local, Local];
  f.set(lowAB, shuffle(a, b, 0, 4, 1, 5));
  f.set(highAB, shuffle(a, b, 2, 6, 3, 7));
  f.set(lowCD, shuffle(c, d, 0, 4, 1, 5));
  f.set(highCD, shuffle(c, d, 2, 6, 3, 7));
  return [
    shuffle(lowAB, lowCD, 0, 1, 4, 5),
    shuffle(lowAB, lowCD, 2, 3, 6, 7),
    shuffle(highAB, highCD, 0, 1, 4, 5),
    shuffle(highAB, highCD, 2, 3, 6, 7),
  ];
}

/** The panel is contiguous: full panels row by row, others element by element. */
function packRows(f: FunctionBuilder, width: number, dtype: FloatDType, args: readonly Local[]): void {
  const [to, from, panelStep, kStep, k, count] = args as Params;
  const bytes = BYTES_PER_ELEMENT[dtype];
  const [p, source, target] = f.locals(3, "i32") as [Local, Local, Local];
  const whole = Math.floor(width / 4) * 4;
  f.if(
    op("i32.eq", count, width),
    () => {
      f.set(source, from);
      f.set(target, to);
      f.for(p, 0, k, 1, () => {
        for (let r = 0; r < whole; r += 4) f.store("v128.store", target, loadFour(f, dtype, source, r * bytes), 4 * r);
        for (let r = whole; r < width; r++)
          f.storeLane("v128.store32_lane", target, loadOne(f, dtype, source, r * bytes), 0, 4 * r);
        f.advance(source, kStep);
        f.advance(target, 4 * width);
      });
    },
    () => {
      zeroUnlessFull(f, width, to, k, count);
      packScalar(f, width, dtype, { to, from, panelStep, kStep, k, first: i32(0), count });
    },
  );
}

/** What is left of `whole` after `done`, at most `most`. */
export const remaining = (f: FunctionBuilder, whole: Expr, done: Expr, most: number): Local => {
  const rest = f.local("i32", sub(whole, done));
  f.if(op("i32.gt_s", rest, most), () => f.set(rest, i32(most)));
  return rest;
};
