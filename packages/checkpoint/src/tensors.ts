import { type DType, type Tensor, type TypedArray, cast, tensor } from "@neolog/tensor";
import { CheckpointError } from "./errors.ts";
import type { StoredDType, StoredTensor } from "./safetensors.ts";

const STORED: { readonly [D in DType]: StoredDType } = {
  float64: "F64",
  float32: "F32",
  int32: "I32",
  bfloat16: "BF16",
  float16: "F16",
};

/** The dtype in which a stored tensor is held; BOOL, U8 and I64 become int32. Throws CheckpointError DTYPE for others. */
export function dtypeOf(stored: { readonly dtype: StoredDType }, name: string): DType {
  const found = (Object.keys(STORED) as DType[]).find((dtype) => STORED[dtype] === stored.dtype);
  if (found) return found;
  if (stored.dtype === "BOOL" || stored.dtype === "U8" || stored.dtype === "I64") return "int32";
  throw new CheckpointError(
    "DTYPE",
    `"${name}": dtype must be one of F64, F32, F16, BF16, I64, I32, U8, BOOL, got ${stored.dtype}`,
    { name },
  );
}

/** The values as the host array of `dtypeOf`; a view of the bytes where the layout is the same. */
export function toTypedArray(stored: StoredTensor, name: string): TypedArray {
  const { buffer, byteOffset, byteLength } = stored.bytes;
  switch (stored.dtype) {
    case "F64":
      return new Float64Array(buffer, byteOffset, byteLength / 8);
    case "F32":
      return new Float32Array(buffer, byteOffset, byteLength / 4);
    case "I32":
      return new Int32Array(buffer, byteOffset, byteLength / 4);
    case "BF16":
    case "F16":
      return new Uint16Array(buffer, byteOffset, byteLength / 2);
    case "BOOL":
    case "U8":
      return Int32Array.from(stored.bytes);
    case "I64":
      return Int32Array.from(new BigInt64Array(buffer, byteOffset, byteLength / 8), Number);
    default:
      dtypeOf(stored, name);
      throw new TypeError(`unreachable dtype ${stored.dtype}`);
  }
}

/** A tensor of the stored values, in `dtype` where given. */
export function toTensor(
  stored: StoredTensor,
  { name = "tensor", dtype }: { name?: string; dtype?: DType } = {},
): Tensor {
  const own = dtypeOf(stored, name);
  const data = toTypedArray(stored, name);
  if (own === "float64" && dtype !== "float64") return tensor(Float32Array.from(data), stored.shape, "float32");
  const t = tensor(data, stored.shape, own);
  if (dtype === undefined || dtype === own) return t;
  const converted = cast(t, dtype);
  t.dispose();
  return converted;
}

/** The values of a tensor as a file holds them. */
export async function fromTensor(t: Tensor): Promise<StoredTensor> {
  const data = await t.data();
  return {
    dtype: STORED[t.dtype],
    shape: t.shape,
    bytes: new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
  };
}
