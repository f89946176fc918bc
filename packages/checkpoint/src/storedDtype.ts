import type { DType, TypedArray } from "@neolog/tensor";
import { CheckpointError } from "./errors.ts";

/** Bits per element of every dtype of the safetensors format, in the order of its reference implementation. */
export const SAFETENSORS_BITS = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
} as const;
export type StoredDType = keyof typeof SAFETENSORS_BITS;

/** A tensor as a file holds it: little-endian, row-major. */
export interface StoredTensor {
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

export const isStoredDType = (dtype: unknown): dtype is StoredDType =>
  typeof dtype === "string" && Object.hasOwn(SAFETENSORS_BITS, dtype);

/** The bytes that a tensor takes, or null where they are no whole number or more than 2^53 − 1. */
export function storedByteLength(dtype: StoredDType, shape: readonly number[]): number | null {
  let elements = 1;
  for (const d of shape) if (!Number.isSafeInteger((elements *= d))) return null;
  const bits = elements * SAFETENSORS_BITS[dtype];
  return Number.isSafeInteger(bits) && bits % 8 === 0 ? bits / 8 : null;
}

/** The stored dtype of each tensor dtype. */
export const STORED_DTYPE: { readonly [D in DType]: StoredDType } = {
  float64: "F64",
  float32: "F32",
  int32: "I32",
  bfloat16: "BF16",
  float16: "F16",
};

const DTYPE: { readonly [D in StoredDType]?: DType } = {
  F64: "float64",
  F32: "float32",
  F16: "float16",
  BF16: "bfloat16",
  I64: "int32",
  I32: "int32",
  U8: "int32",
  BOOL: "int32",
};

/** The dtype in which a stored tensor is held; BOOL, U8 and I64 become int32. Throws CheckpointError DTYPE for others. */
export function dtypeOf({ dtype }: { readonly dtype: StoredDType }, name = "tensor"): DType {
  const found = DTYPE[dtype];
  if (found) return found;
  throw new CheckpointError("DTYPE", `"${name}": dtype must be one of ${Object.keys(DTYPE).join(", ")}, got ${dtype}`, {
    name,
    dtype,
  });
}

/**
 * The values as the host array of `dtypeOf`; a view of the bytes where the layout is the same. Throws CheckpointError DTYPE for
 * other dtypes and for I64 values beyond 32 bits.
 */
export function toTypedArray(stored: StoredTensor, name = "tensor"): TypedArray {
  dtypeOf(stored, name);
  const { buffer, byteOffset, byteLength } = stored.bytes;
  switch (stored.dtype) {
    case "F64":
      return new Float64Array(buffer, byteOffset, byteLength / 8);
    case "F32":
      return new Float32Array(buffer, byteOffset, byteLength / 4);
    case "I32":
      return new Int32Array(buffer, byteOffset, byteLength / 4);
    case "I64":
      return narrow(new BigInt64Array(buffer, byteOffset, byteLength / 8), name);
    case "U8":
      return Int32Array.from(stored.bytes);
    case "BOOL":
      return Int32Array.from(stored.bytes, (byte) => (byte === 0 ? 0 : 1));
    default:
      return new Uint16Array(buffer, byteOffset, byteLength / 2);
  }
}

function narrow(values: BigInt64Array, name: string): Int32Array {
  const out = new Int32Array(values.length);
  for (let i = 0; i < out.length; i++) {
    out[i] = Number(values[i]!);
    if (BigInt(out[i]!) !== values[i]) {
      throw new CheckpointError("DTYPE", `"${name}": I64 values must fit 32 bits, got ${values[i]} at element ${i}`, {
        name,
        element: i,
      });
    }
  }
  return out;
}
