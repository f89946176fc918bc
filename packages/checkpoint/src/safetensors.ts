import { CheckpointError, brief } from "./errors.ts";
import { isJsonObject } from "./json.ts";
import { parseStrictJson } from "./jsonParser.ts";
import type { ByteSource } from "./source/source.ts";
import {
  SAFETENSORS_BITS,
  type StoredDType,
  type StoredTensor,
  isStoredDType,
  storedByteLength,
} from "./storedDtype.ts";

/** Where a file holds a tensor. */
export interface TensorInfo {
  readonly name: string;
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
  /** Position in the file, in bytes. */
  readonly byteOffset: number;
  readonly byteLength: number;
}

export interface SafetensorsFile {
  readonly name: string;
  readonly metadata: ReadonlyMap<string, string>;
  /** By name, in the order of their bytes. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /**
   * One tensor; its bytes are aligned to 8, and a view of the file's where that is in memory. Throws CheckpointError MISSING
   * for an unknown name.
   */
  read(name: string): Promise<StoredTensor>;
  /** Its bytes from `begin`, written into `target`, which they fill. */
  readInto(name: string, target: Uint8Array, begin?: number): Promise<void>;
  close(): Promise<void>;
}

/** The reference implementation's limit, in bytes. */
const MAX_HEADER = 100_000_000;

/**
 * Opens a safetensors file: reads and checks its header, nothing else. The source is closed with the file, or at once when the
 * header is bad: CheckpointError CORRUPT. Format: https://github.com/huggingface/safetensors#format
 */
export async function openSafetensors(source: ByteSource): Promise<SafetensorsFile> {
  try {
    return await openChecked(source);
  } catch (error) {
    await source.close();
    throw error;
  }
}

async function openChecked(source: ByteSource): Promise<SafetensorsFile> {
  const { header, dataStart } = await readHeader(source);
  const { __metadata__: metadata, ...entries } = header;
  const tensors = Object.entries(entries).map(([name, entry]) => tensorInfo(source.name, name, entry, dataStart));
  tensors.sort((a, b) => a.byteOffset - b.byteOffset || a.byteLength - b.byteLength);
  checkContiguous(source, tensors, dataStart);
  const byName = new Map(tensors.map((info) => [info.name, info]));
  const infoOf = (name: string): TensorInfo => {
    const info = byName.get(name);
    if (!info) throw missingTensor(source.name, name);
    return info;
  };
  return {
    name: source.name,
    metadata: metadataOf(source.name, metadata),
    tensors: byName,
    async read(name) {
      const info = infoOf(name);
      const bytes = await source.read(info.byteOffset, info.byteLength);
      return { dtype: info.dtype, shape: info.shape, bytes: bytes.byteOffset % 8 === 0 ? bytes : bytes.slice() };
    },
    async readInto(name, target, begin = 0) {
      const { byteOffset, byteLength } = infoOf(name);
      if (begin < 0 || begin + target.byteLength > byteLength) {
        const asked = `${begin} to ${begin + target.byteLength}`;
        throw new RangeError(`readInto: bytes must lie inside the ${byteLength} of "${name}", got ${asked}`);
      }
      await source.readInto(byteOffset + begin, target);
    },
    close: () => source.close(),
  };
}

/** The header's JSON object and where the tensors' bytes start. */
async function readHeader(source: ByteSource): Promise<{ header: Record<string, unknown>; dataStart: number }> {
  const { name, size } = source;
  if (size < 8) throw corrupt(name, "a safetensors file must have at least 8 bytes", size);
  const prefix = await source.read(0, 8);
  const length = Number(new DataView(prefix.buffer, prefix.byteOffset, 8).getBigUint64(0, true));
  if (length > MAX_HEADER) {
    throw corrupt(name, `the header must take at most ${MAX_HEADER} bytes (is this a safetensors file?)`, length);
  }
  if (8 + length > size) throw corrupt(name, `the file must hold a header of ${length} bytes`, `${size} bytes in all`);
  const bytes = await source.read(8, length);
  if (bytes[0] !== 0x7b)
    throw corrupt(name, 'the header must start with "{"', length === 0 ? "nothing" : `byte ${bytes[0]}`);
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    return { header: parseStrictJson(text) as Record<string, unknown>, dataStart: 8 + length };
  } catch (error) {
    throw corrupt(name, "the header must be a JSON object in UTF-8", (error as Error).message);
  }
}

function tensorInfo(file: string, name: string, entry: unknown, dataStart: number): TensorInfo {
  const bad = (expected: string, found: unknown): CheckpointError => corrupt(file, expected, brief(found), name);
  if (/\p{Surrogate}/u.test(name)) throw bad("a tensor name must be well-formed Unicode", name);
  if (!isJsonObject(entry)) throw bad("an entry must be an object with dtype, shape and data_offsets", entry);
  const { dtype, shape, data_offsets: offsets } = entry;
  if (!isStoredDType(dtype)) throw bad(`dtype must be one of ${Object.keys(SAFETENSORS_BITS).join(", ")}`, dtype);
  if (!isSizes(shape)) throw bad("shape must be a list of sizes", shape);
  if (!isSizes(offsets) || offsets.length !== 2) throw bad("data_offsets must be [begin, end]", offsets);
  const [begin, end] = offsets as [number, number];
  const byteLength = storedByteLength(dtype, shape);
  if (byteLength === null) throw bad(`${dtype} must take a whole number of bytes below 2^53`, shape);
  if (end - begin !== byteLength) throw bad(`${dtype} ${brief(shape)} must take ${byteLength} bytes`, end - begin);
  return { name, dtype, shape, byteOffset: dataStart + begin, byteLength };
}

function checkContiguous(source: ByteSource, inOrder: readonly TensorInfo[], dataStart: number): void {
  let end = dataStart;
  for (const { name, byteOffset, byteLength } of inOrder) {
    if (byteOffset !== end) {
      const what = byteOffset < end ? "overlap" : "leave a hole";
      throw corrupt(source.name, `tensors must not ${what}: it must start at byte ${end}`, byteOffset, name);
    }
    end += byteLength;
  }
  if (end !== source.size) {
    throw corrupt(source.name, `the file must end with its last tensor, at byte ${end}`, `${source.size} bytes`);
  }
}

function metadataOf(file: string, metadata: unknown): Map<string, string> {
  if (metadata === undefined || metadata === null) return new Map();
  if (!isJsonObject(metadata)) throw corrupt(file, "__metadata__ must be an object of strings", brief(metadata));
  for (const [key, value] of Object.entries(metadata)) {
    if (typeof value === "string") continue;
    throw corrupt(file, `__metadata__ must map strings to strings, also ${brief(key)}`, brief(value));
  }
  return new Map(Object.entries(metadata as Record<string, string>));
}

/** Lengths and offsets: whole numbers from 0 that a JavaScript number holds. */
const isSizes = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every((d) => Number.isSafeInteger(d) && d >= 0);

function corrupt(file: string, expected: string, found: unknown, tensor?: string): CheckpointError {
  const where = tensor === undefined ? file : `${file}: ${brief(tensor)}`;
  return new CheckpointError("CORRUPT", `${where}: ${expected}, got ${String(found)}`, {
    file,
    ...(tensor === undefined ? {} : { tensor }),
    expected,
    found,
  });
}

/** The error of a file that lacks a tensor. */
export const missingTensor = (file: string, name: string): CheckpointError =>
  new CheckpointError("MISSING", `${file}: must hold tensor "${name}", found none`, { file, name });
