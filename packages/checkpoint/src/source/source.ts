import { CheckpointError } from "../errors.ts";

/** Bytes that can be read anywhere: a file, a Blob, a URL, an array. */
export interface ByteSource {
  /** For messages. */
  readonly name: string;
  /** In bytes. */
  readonly size: number;
  /**
   * `length` bytes from `offset`: a fresh array, or a view where the source is in memory. Throws CheckpointError CORRUPT when
   * the source ends before.
   */
  read(offset: number, length: number): Promise<Uint8Array>;
  /** The same, written into `target`, which they fill. */
  readInto(offset: number, target: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

/** Bytes in memory; reads are views. */
export function memorySource(name: string, bytes: Uint8Array): ByteSource {
  const view = (offset: number, length: number): Uint8Array => {
    const part = bytes.subarray(offset, offset + length);
    if (part.byteLength !== length) throw endsEarly(name, offset, length, part.byteLength);
    return part;
  };
  return {
    name,
    size: bytes.byteLength,
    read: async (offset, length) => view(offset, length),
    readInto: async (offset, target) => target.set(view(offset, target.byteLength)),
    close: async () => {},
  };
}

/** Bytes that are held beside the target while a source is read into it. */
const PIECE = 2 ** 26;

/** `readInto` of a source that can only give arrays: piece by piece, so that few bytes are there twice. */
export async function readPieces(read: ByteSource["read"], offset: number, target: Uint8Array): Promise<void> {
  for (let at = 0; at < target.byteLength; at += PIECE) {
    target.set(await read(offset + at, Math.min(PIECE, target.byteLength - at)), at);
  }
}

/** The error of a source that holds fewer bytes than it must. */
export const endsEarly = (file: string, offset: number, expected: number, found: number): CheckpointError =>
  new CheckpointError("CORRUPT", `${file}: ${expected} bytes must follow offset ${offset}, found ${found}`, {
    file,
    offset,
    expected,
    found,
  });
