import { type ByteSource, endsEarly, readPieces } from "./source.ts";

/** A File or Blob: dropped on a page, or from the origin's private file system. */
export function blobSource(name: string, blob: Blob): ByteSource {
  const read = async (offset: number, length: number): Promise<Uint8Array> => {
    const bytes = new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer());
    if (bytes.byteLength !== length) throw endsEarly(name, offset, length, bytes.byteLength);
    return bytes;
  };
  return {
    name,
    size: blob.size,
    read,
    readInto: (offset, target) => readPieces(read, offset, target),
    close: async () => {},
  };
}
