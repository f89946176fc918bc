import {
  type Backend,
  type DType,
  type Tensor,
  type TypedArray,
  filledBy,
  fromBfloat16,
  fromFloat16,
  isStorageDType,
  tensor,
} from "@neolog/tensor";
import { CheckpointError } from "./errors.ts";
import type { Checkpoint } from "./sharded.ts";
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

/**
 * A tensor of a checkpoint, as `toTensor` makes it; where nothing is to be converted, its bytes go from the file straight into the
 * backend's memory.
 */
export async function readTensor(
  checkpoint: Pick<Checkpoint, "info" | "read" | "readInto">,
  name: string,
  options: Omit<ToTensorOptions, "name"> = {},
): Promise<Tensor> {
  const info = checkpoint.info(name);
  const dtype = dtypeOf(info, name);
  const asStored = STORED_DTYPE[dtype] === info.dtype && dtype !== "float64" && (options.dtype ?? dtype) === dtype;
  if (!asStored) return toTensor(await checkpoint.read(name), { name, ...options });
  return filledBy((bytes) => checkpoint.readInto(name, bytes), info.shape, dtype, options.backend);
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
