import type { Lanes, Vectors } from "./vectors.ts";

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
  const t = v.madd(x, v.constant(Math.LOG2E), round);
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

/** 1 + eˣ, cheaper than `exp`: what is below 2⁻¹²⁶ vanishes beside 1. At most 1.5 ULP off. */
export function onePlusExp(v: Vectors, x: Lanes): Lanes {
  const inRange = v.apply("f32x4.pmax", v.apply("f32x4.pmin", x, v.constant(89)), v.constant(-87));
  const { t, r } = reduceByLn2(v, inRange, 127 - 1);
  const half = exponent(v, t); // 2ⁿ⁻¹: 2¹²⁸ is no float
  return v.madd(v.madd(half, smallExpm1(v, r), half), v.constant(2), v.constant(1));
}

/** 1 + tanh(x) = 2 / (1 + e⁻²ˣ), to full precision where it is almost 0. At most 2.5 ULP off; 0 below 2⁻¹²⁶. */
export const onePlusTanh = (v: Vectors, x: Lanes): Lanes =>
  v.div(v.constant(2), onePlusExp(v, v.mul(x, v.constant(-2))));

/** eˣ − 1, to full precision around 0. At most 1.5 ULP off. */
export function expm1(v: Vectors, x: Lanes): Lanes {
  const inRange = v.apply("f32x4.pmax", v.apply("f32x4.pmin", x, v.constant(89)), v.constant(-20));
  const { t, r } = reduceByLn2(v, inRange, 127 - 1);
  const half = exponent(v, t); // 2ⁿ⁻¹, as above
  const y = v.madd(half, smallExpm1(v, r), v.sub(half, v.constant(0.5)));
  return v.add(y, y);
}

/** (eᵃ − 1) / (eᵃ + 1) for a = 2|x|, with the sign of x. At most 2.5 ULP off. */
export function tanh(v: Vectors, x: Lanes): Lanes {
  const magnitude = v.apply("f32x4.pmin", v.apply("f32x4.abs", x), v.constant(10)); // tanh is 1 from 9.02 on
  const y = expm1OfPositive(v, v.add(magnitude, magnitude));
  return withSign(v, v.div(y, v.add(y, v.constant(2))), x);
}

/** eˣ − 1 for x in [0, 88]. */
function expm1OfPositive(v: Vectors, x: Lanes): Lanes {
  const { t, r } = reduceByLn2(v, x, 127);
  const power = exponent(v, t);
  return v.madd(power, smallExpm1(v, r), v.sub(power, v.constant(1)));
}

/** |magnitude| with the sign of x. */
const withSign = (v: Vectors, magnitude: Lanes, x: Lanes): Lanes => v.select(v.bits(0x7fffffff), magnitude, x);

/** log(1 + f) = f − f²/2 + f³·P(f) for f in [√½ − 1, √2 − 1], highest power first; Cephes. */
const LOG = [
  7.0376836292e-2, -1.151461031e-1, 1.167699874e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
  2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
];

/** log(1 + f) + e·ln 2 */
function logFrom(v: Vectors, f: Lanes, e: Lanes): Lanes {
  const square = v.mul(f, f);
  const y = v.madd(e, v.constant(LN2_LOW), v.mul(v.mul(square, f), horner(v, f, LOG)));
  return v.madd(e, v.constant(LN2_HIGH), v.add(f, v.nmadd(square, v.constant(0.5), y)));
}

/** A normal x = m·2ᵉ with m in [√½, √2); e as int32. */
function split(v: Vectors, x: Lanes): { m: Lanes; e: Lanes } {
  const root = v.constant(Math.SQRT1_2);
  const offset = v.apply("i32x4.sub", x, root);
  const m = v.apply("i32x4.add", v.apply("v128.and", offset, v.bits(0x007fffff)), root);
  return { m, e: v.apply("i32x4.shr_s", offset, 23) };
}

/** `y` where x is positive and finite; else what log answers: −Infinity for 0, NaN below it, Infinity and NaN as they are. */
function logLimits(v: Vectors, x: Lanes, y: Lanes): Lanes {
  const positive = v.select(v.apply("f32x4.lt", x, v.constant(Infinity)), y, x);
  const zero = v.constant(0);
  const rest = v.select(v.apply("f32x4.lt", x, zero), v.constant(NaN), v.constant(-Infinity));
  return v.select(v.apply("f32x4.le", x, zero), rest, positive);
}

/** Natural logarithm. At most 1.5 ULP off. */
export function log(v: Vectors, x: Lanes): Lanes {
  const isSmall = v.apply("f32x4.lt", x, v.constant(2 ** -126));
  const normal = v.select(isSmall, v.mul(x, v.constant(2 ** 24)), x);
  const { m, e } = split(v, normal);
  const power = v.sub(v.apply("f32x4.convert_i32x4_s", e), v.apply("v128.and", isSmall, v.constant(24)));
  return logLimits(v, x, logFrom(v, v.sub(m, v.constant(1)), power));
}

/** log(1 + x), to full precision around 0. At most 1.5 ULP off. */
export function log1p(v: Vectors, x: Lanes): Lanes {
  const one = v.constant(1);
  const u = v.add(x, one);
  const lost = v.sub(x, v.sub(u, one)); // 1 + x = u + lost
  const { m, e } = split(v, u);
  const scale = v.apply("i32x4.max_s", v.apply("i32x4.sub", one, v.apply("i32x4.shl", e, 23)), v.constant(0)); // 2⁻ᵉ
  const f = v.madd(lost, scale, v.sub(m, one));
  return logLimits(v, u, logFrom(v, f, v.apply("f32x4.convert_i32x4_s", e)));
}

/** erf(x) / x − 1 in powers of x² for |x| ≤ 475/512, highest first; N. Juffa, https://stackoverflow.com/q/35148198 */
const ERF = [-5.96761703e-4, 4.99119423e-3, -2.67681349e-2, 1.12819925e-1, -3.76125336e-1, 1.28379166e-1];
/** log(1 − erf(x)) / x + 1 in powers of x beyond, highest first; from the same source. */
const ERFC = [
  -1.7285347e-5, 3.83197126e-4, -3.88396438e-3, 2.42546219e-2, -1.06777877e-1, -6.34846687e-1, -1.28717512e-1,
];

/** Error function. At most 1.5 ULP off. */
export function erf(v: Vectors, x: Lanes): Lanes {
  const near = v.madd(horner(v, v.mul(x, x), ERF), x, x);
  const magnitude = v.apply("f32x4.pmin", v.apply("f32x4.abs", x), v.constant(4)); // erf is 1 from 3.92 on
  const tail = expOfNegative(v, v.madd(horner(v, magnitude, ERFC), magnitude, v.apply("f32x4.neg", magnitude)));
  const far = withSign(v, v.sub(v.constant(1), tail), x);
  return v.select(v.apply("f32x4.gt", magnitude, v.constant(475 / 512)), far, near);
}
