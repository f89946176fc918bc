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
  close(): Promise<void>;
}

/** Bytes in memory; reads are views. */
export function memorySource(name: string, bytes: Uint8Array): ByteSource {
  return {
    name,
    size: bytes.byteLength,
    async read(offset, length) {
      const view = bytes.subarray(offset, offset + length);
      if (view.byteLength !== length) throw endsEarly(name, offset, length, view.byteLength);
      return view;
    },
    close: async () => {},
  };
}

/** The error of a source that holds fewer bytes than it must. */
export const endsEarly = (file: string, offset: number, expected: number, found: number): CheckpointError =>
  new CheckpointError("CORRUPT", `${file}: ${expected} bytes must follow offset ${offset}, found ${found}`, {
    file,
    offset,
    expected,
    found,
  });
