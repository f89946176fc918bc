import { CheckpointError } from "./errors.ts";
import { compareCodePoints } from "./order.ts";
import { SAFETENSORS_BITS, type StoredDType, type StoredTensor, storedByteLength } from "./storedDtype.ts";

/** Free text of a file, in the order in which it is written; none is written when it is empty. */
export type Metadata = ReadonlyMap<string, string> | Readonly<Record<string, string>>;

/** A tensor whose bytes are made when they are written. */
export interface LazyTensor extends Omit<StoredTensor, "bytes"> {
  read(): Promise<Uint8Array>;
}

/** What Transformers and PEFT write, and look for when they read. */
const PYTORCH: Metadata = { format: "pt" };

/**
 * The bytes of a safetensors file, the same as the reference writer's: tensors by dtype (wide first), then name; compact JSON,
 * padded with spaces to a multiple of 8. Throws CheckpointError: SHAPE where bytes and shape disagree, UNEXPECTED for a name that
 * is given twice or cannot be stored.
 */
export function writeSafetensors(
  tensors: Iterable<readonly [name: string, tensor: StoredTensor]>,
  metadata: Metadata = PYTORCH,
): Uint8Array {
  const inOrder = sortForFile(tensors);
  const { header, dataLength } = formatHeader(inOrder, metadata);
  const file = new Uint8Array(header.byteLength + dataLength);
  file.set(header);
  let at = header.byteLength;
  for (const [name, tensor] of inOrder) {
    file.set(checkBytes(name, tensor, tensor.bytes), at);
    at += tensor.bytes.byteLength;
  }
  return file;
}

/** The same file in pieces, one tensor in memory at a time. Throws as `writeSafetensors`, while it is read. */
export async function* streamSafetensors(
  tensors: Iterable<readonly [name: string, tensor: LazyTensor]>,
  metadata: Metadata = PYTORCH,
): AsyncGenerator<Uint8Array, void, undefined> {
  const inOrder = sortForFile(tensors);
  yield formatHeader(inOrder, metadata).header;
  for (const [name, tensor] of inOrder) yield checkBytes(name, tensor, await tensor.read());
}

interface Description {
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
}

const RANK = new Map(Object.keys(SAFETENSORS_BITS).map((dtype, rank) => [dtype, rank]));

function sortForFile<T extends Description>(tensors: Iterable<readonly [string, T]>): (readonly [string, T])[] {
  const inOrder = [...tensors].toSorted(
    ([nameA, a], [nameB, b]) => RANK.get(b.dtype)! - RANK.get(a.dtype)! || compareCodePoints(nameA, nameB),
  );
  const names = new Set<string>();
  for (const [name] of inOrder) {
    if (names.has(name)) throw unexpectedName("must be unique", name);
    if (name === "__metadata__") throw unexpectedName("must not be the format's own", name);
    if (/\p{Surrogate}/u.test(name)) throw unexpectedName("must be well-formed Unicode", name);
    names.add(name);
  }
  return inOrder;
}

/** The length prefix and header of a file, and how many bytes of tensors follow. */
function formatHeader(
  inOrder: readonly (readonly [string, Description])[],
  metadata: Metadata,
): { header: Uint8Array; dataLength: number } {
  const pairs = metadata instanceof Map ? [...metadata] : Object.entries(metadata);
  const entries = pairs.length > 0 ? [`"__metadata__":{${pairs.map(([key, text]) => pair(key, text)).join(",")}}`] : [];
  let end = 0;
  for (const [name, { dtype, shape }] of inOrder) {
    const begin = end;
    end += byteLengthOf(name, { dtype, shape });
    entries.push(pair(name, { dtype, shape, data_offsets: [begin, end] }));
  }
  const json = new TextEncoder().encode(`{${entries.join(",")}}`);
  const padded = Math.ceil(json.byteLength / 8) * 8;
  const header = new Uint8Array(8 + padded).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(padded), true);
  header.set(json, 8);
  return { header, dataLength: end };
}

const pair = (key: string, value: unknown): string => `${JSON.stringify(key)}:${JSON.stringify(value)}`;

function byteLengthOf(name: string, { dtype, shape }: Description): number {
  const length = shape.every((d) => Number.isSafeInteger(d) && d >= 0) ? storedByteLength(dtype, shape) : null;
  if (length !== null) return length;
  throw new CheckpointError("SHAPE", `"${name}": ${dtype} must fill whole bytes, got shape [${shape.join(", ")}]`, {
    name,
    dtype,
    shape,
  });
}

function checkBytes(name: string, { dtype, shape }: Description, bytes: Uint8Array): Uint8Array {
  const expected = byteLengthOf(name, { dtype, shape });
  if (bytes.byteLength === expected) return bytes;
  throw new CheckpointError(
    "SHAPE",
    `"${name}": ${dtype} [${shape.join(", ")}] must take ${expected} bytes, got ${bytes.byteLength}`,
    { name, expected, found: bytes.byteLength },
  );
}

const unexpectedName = (mustBe: string, name: string): CheckpointError =>
  new CheckpointError("UNEXPECTED", `a tensor name ${mustBe}, got ${JSON.stringify(name)}`, { name });
