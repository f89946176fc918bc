import { CheckpointError } from "./errors.ts";
import type { ByteSource } from "./source/source.ts";

/** Bits per element of every dtype of the format, in the order of its reference implementation. */
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
  /** By name, in the file's order. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** Throws CheckpointError MISSING for an unknown name. */
  read(name: string): Promise<StoredTensor>;
  close(): Promise<void>;
}

const MAX_HEADER = 100_000_000;

/** Opens a safetensors file: reads and checks its header, nothing else. Throws CheckpointError CORRUPT. */
export async function openSafetensors(source: ByteSource): Promise<SafetensorsFile> {
  const { metadata, tensors } = await readHeader(source);
  return {
    name: source.name,
    metadata,
    tensors,
    async read(name) {
      const info = tensors.get(name);
      if (!info)
        throw new CheckpointError("MISSING", `${source.name}: must hold tensor "${name}", found none`, { name });
      const bytes = await source.read(info.byteOffset, info.byteLength);
      // typed-array views need aligned bytes; headers of other writers may leave them unaligned
      return { dtype: info.dtype, shape: info.shape, bytes: bytes.byteOffset % 8 === 0 ? bytes : bytes.slice() };
    },
    close: () => source.close(),
  };
}

async function readHeader(
  source: ByteSource,
): Promise<{ metadata: Map<string, string>; tensors: Map<string, TensorInfo> }> {
  const corrupt = (mustHold: string, found: unknown): CheckpointError =>
    new CheckpointError("CORRUPT", `${source.name}: ${mustHold}, got ${String(found)}`, { file: source.name });
  if (source.size < 8) throw corrupt("a safetensors file has at least 8 bytes", source.size);
  const prefix = await source.read(0, 8);
  const length = Number(new DataView(prefix.buffer, prefix.byteOffset, 8).getBigUint64(0, true));
  if (length > MAX_HEADER)
    throw corrupt(`the header must be at most ${MAX_HEADER} bytes (is this a safetensors file?)`, length);
  if (8 + length > source.size)
    throw corrupt(`the file must hold a header of ${length} bytes`, `${source.size} bytes in all`);
  const header = await source.read(8, length);
  if (header[0] !== 0x7b) throw corrupt('the header must start with "{"', `byte ${header[0]}`);

  let entries: [string, unknown][];
  try {
    entries = parseEntries(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(header));
  } catch (error) {
    throw corrupt("the header must be a JSON object in UTF-8", (error as Error).message);
  }
  const metadata = new Map<string, string>();
  const tensors = new Map<string, TensorInfo>();
  for (const [name, entry] of entries) {
    if (name === "__metadata__") {
      for (const [key, value] of Object.entries((entry ?? {}) as object)) {
        if (typeof value !== "string")
          throw corrupt(`__metadata__ must map strings to strings ("${key}")`, JSON.stringify(value));
        metadata.set(key, value);
      }
      continue;
    }
    if (tensors.has(name)) throw corrupt("tensor names must be unique", `"${name}" twice`);
    tensors.set(name, tensorInfo(name, entry, 8 + length, corrupt));
  }

  let end = 8 + length;
  const inOrder = [...tensors.values()].toSorted((a, b) => a.byteOffset - b.byteOffset || a.byteLength - b.byteLength);
  for (const { name, byteOffset, byteLength } of inOrder) {
    if (byteOffset !== end)
      throw corrupt(`tensors must follow one another without holes or overlaps ("${name}" at ${end})`, byteOffset);
    end += byteLength;
  }
  if (end !== source.size)
    throw corrupt(`the file must end with its last tensor (${end} bytes)`, `${source.size} bytes`);
  return { metadata, tensors };
}

/** Top-level entries in order; JSON.parse alone would drop a duplicate key and give "__proto__" a meaning. */
function parseEntries(text: string): [string, unknown][] {
  const parsed: unknown = JSON.parse(text);
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) throw new SyntaxError("no object");
  const entries = Object.entries(parsed);
  const keys = topLevelKeys(text);
  if (keys.length !== entries.length) throw new SyntaxError("duplicate keys");
  return entries;
}

function topLevelKeys(text: string): string[] {
  const keys: string[] = [];
  let depth = 0;
  for (const token of text.matchAll(/"(?:[^"\\]|\\.)*"(\s*:)?|[[\]{}]/g)) {
    if (token[0] === "{" || token[0] === "[") depth++;
    else if (token[0] === "}" || token[0] === "]") depth--;
    else if (depth === 1 && token[1] !== undefined) keys.push(token[0]);
  }
  return keys;
}

function tensorInfo(
  name: string,
  entry: unknown,
  dataStart: number,
  corrupt: (mustHold: string, found: unknown) => CheckpointError,
): TensorInfo {
  const { dtype, shape, data_offsets: offsets } = (entry ?? {}) as Record<string, unknown>;
  if (typeof dtype !== "string" || !Object.hasOwn(SAFETENSORS_BITS, dtype)) {
    throw corrupt(`"${name}": dtype must be one of ${Object.keys(SAFETENSORS_BITS).join(", ")}`, JSON.stringify(dtype));
  }
  if (!isSizes(shape)) throw corrupt(`"${name}": shape must be a list of sizes`, JSON.stringify(shape));
  if (!isSizes(offsets) || offsets.length !== 2 || offsets[1]! < offsets[0]!) {
    throw corrupt(`"${name}": data_offsets must be [begin, end]`, JSON.stringify(offsets));
  }
  const bits = shape.reduce((product, d) => product * d, SAFETENSORS_BITS[dtype as StoredDType]);
  const [begin, end] = offsets as [number, number];
  if (!Number.isSafeInteger(bits) || bits % 8 !== 0 || bits / 8 !== end - begin) {
    throw corrupt(`"${name}": ${dtype} [${shape.join(", ")}] must take ${bits / 8} bytes`, end - begin);
  }
  return { name, dtype: dtype as StoredDType, shape, byteOffset: dataStart + begin, byteLength: end - begin };
}

const isSizes = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every((d) => Number.isSafeInteger(d) && d >= 0);

/**
 * The bytes of a safetensors file as the reference writer makes them: tensors by dtype (large first), then name; `__metadata__`
 * first; compact JSON, padded with spaces to a multiple of 8.
 */
export function writeSafetensors(
  tensors: Iterable<readonly [name: string, tensor: StoredTensor]>,
  metadata: Readonly<Record<string, string>> = { format: "pt" },
): Uint8Array {
  const ranks = Object.keys(SAFETENSORS_BITS);
  const sorted = [...tensors].toSorted(
    ([nameA, a], [nameB, b]) => ranks.indexOf(b.dtype) - ranks.indexOf(a.dtype) || compareUtf8(nameA, nameB),
  );
  let end = 0;
  const entries = sorted.map(([name, { dtype, shape, bytes }]) => {
    const data_offsets = [end, (end += bytes.byteLength)];
    return `${JSON.stringify(name)}:${JSON.stringify({ dtype, shape, data_offsets })}`;
  });
  if (Object.keys(metadata).length > 0) entries.unshift(`"__metadata__":${JSON.stringify(metadata)}`);
  const header = new TextEncoder().encode(`{${entries.join(",")}}`);
  const padded = Math.ceil(header.byteLength / 8) * 8;
  const file = new Uint8Array(8 + padded + end);
  new DataView(file.buffer).setBigUint64(0, BigInt(padded), true);
  file.fill(0x20, 8, 8 + padded);
  file.set(header, 8);
  let at = 8 + padded;
  for (const [, { bytes }] of sorted) {
    file.set(bytes, at);
    at += bytes.byteLength;
  }
  return file;
}

const encoder = new TextEncoder();

/** Byte order of UTF-8, as Rust compares strings. */
function compareUtf8(a: string, b: string): number {
  const x = encoder.encode(a);
  const y = encoder.encode(b);
  for (let i = 0; i < Math.min(x.length, y.length); i++) if (x[i] !== y[i]) return x[i]! - y[i]!;
  return x.length - y.length;
}
