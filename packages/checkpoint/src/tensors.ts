import {
  type Backend,
  type DType,
  type Tensor,
  type TypedArray,
  fromBfloat16,
  fromFloat16,
  isStorageDType,
  tensor,
} from "@neolog/tensor";
import { CheckpointError } from "./errors.ts";
import { STORED_DTYPE, type StoredTensor, dtypeOf, toTypedArray } from "./storedDtype.ts";

export interface ToTensorOptions {
  /** Convert to this dtype; without it as stored, save that F64 becomes float32, which every backend holds. */
  readonly dtype?: DType | undefined;
  /** For messages. */
  readonly name?: string | undefined;
  /** The default backend when absent. */
  readonly backend?: Backend | undefined;
}

/** A tensor of the stored values. Throws CheckpointError DTYPE for dtypes that no backend holds, or floats wanted as int32. */
export function toTensor(stored: StoredTensor, { name = "tensor", dtype, backend }: ToTensorOptions = {}): Tensor {
  const own = dtypeOf(stored, name);
  const wanted = dtype ?? (own === "float64" ? "float32" : own);
  if (wanted === "int32" && own !== "int32") {
    throw new CheckpointError("DTYPE", `"${name}": must hold integers to be int32, got ${stored.dtype}`, { name });
  }
  const data = toTypedArray(stored, name);
  return tensor(wanted === own || !isStorageDType(own) ? data : widen(data, own), stored.shape, wanted, backend);
}

/** The values of a tensor as a file holds them. */
export async function fromTensor(t: Tensor): Promise<StoredTensor> {
  const { buffer, byteOffset, byteLength } = await t.data();
  return { dtype: STORED_DTYPE[t.dtype], shape: t.shape, bytes: new Uint8Array(buffer, byteOffset, byteLength) };
}

function widen(bits: TypedArray, dtype: DType): Float32Array {
  const number = dtype === "bfloat16" ? fromBfloat16 : fromFloat16;
  const out = new Float32Array(bits.length);
  for (let i = 0; i < out.length; i++) out[i] = number(bits[i]!);
  return out;
}
