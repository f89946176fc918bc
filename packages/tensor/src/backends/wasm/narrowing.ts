import { type Expr, f32x4, i32x4, op } from "./asm/expression.ts";
import type { FunctionBuilder } from "./asm/function.ts";

/** float32 lanes → the bits of 16-bit floats, one in each 32-bit lane; to nearest, ties to even, NaN stays NaN. */
export const narrow = (f: FunctionBuilder, dtype: "bfloat16" | "float16", x: Expr): Expr =>
  dtype === "bfloat16" ? toBfloat16(f, x) : toFloat16(f, x);

function toBfloat16(f: FunctionBuilder, x: Expr): Expr {
  const bits = f.local("v128", x);
  const upper = f.local("v128", op("i32x4.shr_u", bits, 16));
  const carry = op("i32x4.add", op("v128.and", upper, i32x4(1)), i32x4(0x7fff));
  const rounded = op("i32x4.shr_u", op("i32x4.add", bits, carry), 16);
  const nan = op("v128.or", upper, i32x4(0x40));
  return op("v128.bitselect", rounded, nan, op("f32x4.eq", bits, bits));
}

/** After F. Giesen, https://gist.github.com/rygorous/2156668 */
function toFloat16(f: FunctionBuilder, x: Expr): Expr {
  const bits = f.local("v128", x);
  const magnitude = f.local("v128", op("f32x4.abs", bits));
  // below 2⁻¹⁴ adding ½ rounds to multiples of 2⁻²⁴
  const subnormal = op("i32x4.sub", op("f32x4.add", magnitude, f32x4(0.5)), f32x4(0.5));
  const isSubnormal = op("i32x4.lt_s", magnitude, i32x4(0x38800000));
  // exponents move from bias 127 to bias 15
  const odd = op("v128.and", op("i32x4.shr_u", magnitude, 13), i32x4(1));
  const normal = op("i32x4.shr_u", op("i32x4.add", magnitude, op("i32x4.add", odd, i32x4(0xfff - (112 << 23)))), 13);
  const finite = op("v128.bitselect", subnormal, normal, isSubnormal);
  const infinite = op("v128.bitselect", i32x4(0x7c00), i32x4(0x7e00), op("f32x4.eq", bits, bits));
  const overflows = op("i32x4.gt_s", magnitude, i32x4(0x477fffff)); // 65536 and more, and NaN
  const sign = op("v128.and", op("i32x4.shr_u", bits, 16), i32x4(0x8000));
  return op("v128.or", sign, op("v128.bitselect", infinite, finite, overflows));
}

/** float32 lanes → int32, toward zero, modulo 2³² as JavaScript has it; 0 for NaN and infinities. */
export function toInt32(f: FunctionBuilder, x: Expr): Expr {
  const bits = f.local("v128", x);
  const isSmall = op("f32x4.lt", op("f32x4.abs", bits), f32x4(2 ** 31));
  const significand = op("v128.or", op("v128.and", bits, i32x4(0x007fffff)), i32x4(0x00800000));
  // 2³¹ and more is significand · 2⁸ · 2ˢ, s ≥ 0; from s = 24 on nothing is left
  const exponent = op("i32x4.sub", op("v128.and", op("i32x4.shr_u", bits, 23), i32x4(255)), i32x4(158));
  const power = op("i32x4.shl", op("i32x4.add", op("i32x4.min_s", exponent, i32x4(30)), i32x4(127)), 23);
  const wrapped = op("i32x4.mul", op("i32x4.shl", significand, 8), op("i32x4.trunc_sat_f32x4_s", power));
  const sign = f.local("v128", op("i32x4.shr_s", bits, 31));
  const negated = op("i32x4.sub", op("v128.xor", wrapped, sign), sign);
  return op("v128.bitselect", op("i32x4.trunc_sat_f32x4_s", bits), negated, isSmall);
}
