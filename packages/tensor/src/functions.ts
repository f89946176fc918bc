import { roundHalfEven } from "./half.ts";

/** Error function to double precision: Taylor series near 0, Lentz's continued fraction of erfc beyond. Abramowitz & Stegun 7.1.5, 7.1.14. */
export function erf(x: number): number {
  const a = Math.abs(x);
  if (a < 2.5) {
    let term = x;
    let sum = x;
    for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
      term *= (-x * x) / n;
      sum += term / (2 * n + 1);
    }
    return sum * (2 / Math.sqrt(Math.PI));
  }
  if (a > 6) return Math.sign(x);
  if (a !== a) return NaN;
  let fraction = 0;
  for (let n = 60; n >= 1; n--) fraction = n / 2 / (a + fraction);
  return Math.sign(x) * (1 - Math.exp(-a * a) / ((a + fraction) * Math.sqrt(Math.PI)));
}

/** The functions an expression may call, in double precision. */
export const FUNCTIONS = {
  exp: Math.exp,
  expm1: Math.expm1,
  log: Math.log,
  log1p: Math.log1p,
  sqrt: Math.sqrt,
  sin: Math.sin,
  cos: Math.cos,
  tanh: Math.tanh,
  erf,
  abs: Math.abs,
  sign: Math.sign,
  floor: Math.floor,
  ceil: Math.ceil,
  round: roundHalfEven,
  min: Math.min,
  max: Math.max,
  pow: Math.pow,
} as const;

export type FunctionName = keyof typeof FUNCTIONS;
