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
  toHostArray,
  zeros,
} from "@neolog/tensor";
import { CheckpointError } from "./errors.ts";
import type { Checkpoint } from "./sharded.ts";
import type { TensorInfo } from "./safetensors.ts";
import { SAFETENSORS_BITS, STORED_DTYPE, type StoredTensor, dtypeOf, toTypedArray } from "./storedDtype.ts";

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
  const wanted = wantedDType(stored, name, dtype);
  return tensor(valuesOf(stored, name, wanted), stored.shape, wanted, backend);
}

/** Elements that are converted at a time. */
const PIECE = 2 ** 20;

/**
 * A tensor of a checkpoint, as `toTensor` makes it, with little memory beside its own: where nothing is to be converted, the
 * bytes go from the file straight into the backend's; else they are converted piece by piece.
 */
export async function readTensor(
  checkpoint: Pick<Checkpoint, "info" | "readInto">,
  name: string,
  { dtype, backend }: Omit<ToTensorOptions, "name"> = {},
): Promise<Tensor> {
  const info = checkpoint.info(name);
  const wanted = wantedDType(info, name, dtype);
  if (STORED_DTYPE[wanted] === info.dtype)
    return filledBy((bytes) => checkpoint.readInto(name, bytes), info.shape, wanted, backend);
  const t = zeros(info.shape, wanted, backend);
  try {
    for await (const { stored, at } of piecesOf(checkpoint, info)) {
      t.backend.write(t.view("readTensor").buffer, valuesOf(stored, name, wanted), at);
    }
    return t;
  } catch (error) {
    t.dispose();
    throw error;
  }
}

async function* piecesOf(
  checkpoint: Pick<Checkpoint, "readInto">,
  { name, dtype, byteLength }: TensorInfo,
): AsyncGenerator<{ readonly stored: StoredTensor; readonly at: number }, void, undefined> {
  const width = SAFETENSORS_BITS[dtype] / 8;
  const size = byteLength / width;
  for (let at = 0; at < size; at += PIECE) {
    const length = Math.min(PIECE, size - at);
    const bytes = new Uint8Array(length * width);
    await checkpoint.readInto(name, bytes, at * width);
    yield { stored: { dtype, shape: [length], bytes }, at };
  }
}

/** The dtype asked for, else as stored, but float32 for F64, which not every backend holds. */
function wantedDType(stored: Pick<StoredTensor, "dtype">, name: string, dtype: DType | undefined): DType {
  const own = dtypeOf(stored, name);
  const wanted = dtype ?? (own === "float64" ? "float32" : own);
  if (wanted !== "int32" || own === "int32") return wanted;
  throw new CheckpointError("DTYPE", `"${name}": must hold integers to be int32, got ${stored.dtype}`, { name });
}

/** The stored values on the host, converted to `dtype`. Throws CheckpointError DTYPE for dtypes that no backend holds. */
export function valuesOf(stored: StoredTensor, name: string, dtype: DType): TypedArray {
  const own = dtypeOf(stored, name);
  const data = toTypedArray(stored, name);
  return toHostArray(dtype === own || !isStorageDType(own) ? data : widen(data, own), dtype);
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
