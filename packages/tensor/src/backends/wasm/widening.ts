import type { DType } from "../../dtype.ts";
import { type Expr, f32x4, i32x4, load, op } from "./asm/expression.ts";
import type { FunctionBuilder, Local } from "./asm/function.ts";

/** Dtypes that kernels read as float32. */
export type FloatDType = Exclude<DType, "float64" | "int32">;

/** Four elements at `address` + `offset` as float32 lanes; 16-bit floats are widened exactly. */
export function loadFour(f: FunctionBuilder, dtype: FloatDType, address: Expr, offset = 0): Expr {
  if (dtype === "float32") return load("v128.load", address, offset);
  return widen(f, dtype, load("v128.load16x4_u", address, offset));
}

/** One element at `address` + `offset` in lane 0, zeros beside it. */
export function loadOne(f: FunctionBuilder, dtype: FloatDType, address: Expr, offset = 0): Expr {
  if (dtype === "float32") return load("v128.load32_zero", address, offset);
  const bits = f.local("i32", load("i32.load16_u", address, offset));
  const lanes: Expr = { type: "v128", code: [i32x4(0).code, bits.code, 0xfd, 28, 0] }; // i32x4.replace_lane 0
  return widen(f, dtype, lanes);
}

/** Four bit patterns of 16 bits, one in each 32-bit lane → float32. */
function widen(f: FunctionBuilder, dtype: "bfloat16" | "float16", bits: Expr): Expr {
  if (dtype === "bfloat16") return op("i32x4.shl", bits, 16);
  const half = f.local("v128", bits);
  const sign = op("i32x4.shl", op("v128.and", half, i32x4(0x8000)), 16);
  const magnitude: Local = f.local("v128", op("i32x4.shl", op("v128.and", half, i32x4(0x7fff)), 13));
  // exponents move from bias 15 to bias 127; infinity and NaN move by that much again
  const shift = i32x4(0x38000000);
  const special = op("v128.and", op("i32x4.gt_s", magnitude, i32x4(0x0f7fffff)), shift);
  const normal = op("i32x4.add", op("i32x4.add", magnitude, shift), special);
  // 2⁻¹⁴·(1 + fraction) − 2⁻¹⁴, exact
  const subnormal = op("f32x4.sub", op("i32x4.add", magnitude, i32x4(0x38800000)), f32x4(2 ** -14));
  const isSubnormal = op("i32x4.lt_s", magnitude, i32x4(0x00800000));
  return op("v128.or", sign, op("v128.bitselect", subnormal, normal, isSubnormal));
}
