import { type ByteSource, endsEarly } from "./source.ts";

/** A File or Blob: dropped on a page, or from the origin's private file system. */
export function blobSource(name: string, blob: Blob): ByteSource {
  return {
    name,
    size: blob.size,
    async read(offset, length) {
      const bytes = new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer());
      if (bytes.byteLength !== length) throw endsEarly(name, offset, length, bytes.byteLength);
      return bytes;
    },
    close: async () => {},
  };
}
