import type { Lanes, Vectors } from "./vectors.ts";

const LOG2_E = 1.4426950408889634;
/** ln 2 in two parts; a whole number below 2¹⁵ times the first is exact. */
const LN2_HIGH = 0.693359375;
const LN2_LOW = -2.1219444e-4;
/** Numbers of 2²³ and more are whole: x + ROUND has round(x) in its low bits. */
const ROUND = 12_582_912; // 1.5 · 2²³
/** (eʳ − 1 − r) / r² for |r| ≤ ln 2 / 2, highest power first; Cephes, https://www.netlib.org/cephes/ */
const EXP = [1.98756915e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1];

/** The polynomial with these coefficients, highest power first. */
function horner(v: Vectors, x: Lanes, coefficients: readonly number[]): Lanes {
  const [first, ...rest] = coefficients.map((c) => v.constant(c));
  return rest.reduce((y, c) => v.madd(y, x, c), first!);
}

/** x = n·ln 2 + r; the bits of t end in n + `bias`, so that t shifted by 23 is the float 2ⁿ for a bias of 127. */
function reduceByLn2(v: Vectors, x: Lanes, bias: number): { t: Lanes; r: Lanes } {
  const round = v.constant(ROUND + bias);
  const t = v.madd(x, v.constant(LOG2_E), round);
  const n = v.sub(t, round);
  return { t, r: v.nmadd(n, v.constant(LN2_LOW), v.nmadd(n, v.constant(LN2_HIGH), x)) };
}

/** eʳ − 1 for |r| ≤ ln 2 / 2. */
const smallExpm1 = (v: Vectors, r: Lanes): Lanes => v.madd(horner(v, r, EXP), v.mul(r, r), r);

/** The float with these bits shifted into the exponent. */
const exponent = (v: Vectors, bits: Lanes): Lanes => v.apply("i32x4.shl", bits, 23);

/** eˣ: Infinity from 88.73 on, denormals and 0 below −87.34, NaN for NaN. At most 1.5 ULP off. */
export function exp(v: Vectors, x: Lanes): Lanes {
  const inRange = v.apply("f32x4.pmax", v.apply("f32x4.pmin", x, v.constant(89)), v.constant(-104));
  const { t, r } = reduceByLn2(v, inRange, 2 * 127);
  const y = v.add(smallExpm1(v, r), v.constant(1));
  // 2ⁿ in two factors, for n from −150 to 128
  const half = v.apply("i32x4.shr_u", t, 1);
  const otherHalf = v.apply("i32x4.sub", t, half);
  return v.mul(v.mul(y, exponent(v, half)), exponent(v, otherHalf));
}

/** eˣ for x ≤ 0 or NaN, cheaper than `exp`: 1 for 0, 0 for −Infinity. At most 1.5 ULP off. */
export function expOfNegative(v: Vectors, x: Lanes): Lanes {
  const { t, r } = reduceByLn2(v, v.apply("f32x4.pmax", x, v.constant(-104)), 127 + 64);
  const y = v.add(smallExpm1(v, r), v.constant(1));
  return v.mul(v.mul(y, exponent(v, t)), v.constant(2 ** -64));
}
