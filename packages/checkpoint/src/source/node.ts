import { CheckpointError } from "../errors.ts";
import type { ByteSource } from "./source.ts";

/** One read call takes at most 1 GiB. */
const PIECE = 2 ** 30;

/** A file on disk, read by position. */
export async function fileSource(path: string): Promise<ByteSource> {
  const { open } = await import("node:fs/promises");
  const file = await open(path, "r").catch((error: NodeJS.ErrnoException) => {
    throw new CheckpointError("NOT_FOUND", `${path}: must be a readable file, got ${error.code}`, { file: path });
  });
  const { size } = await file.stat();
  return {
    name: path,
    size,
    async read(offset, length) {
      const bytes = new Uint8Array(length);
      for (let at = 0; at < length;) {
        const { bytesRead } = await file.read(bytes, at, Math.min(PIECE, length - at), offset + at);
        if (bytesRead === 0) {
          throw new CheckpointError("CORRUPT", `${path}: ${length} bytes must follow offset ${offset}, got ${at}`, {
            file: path,
          });
        }
        at += bytesRead;
      }
      return bytes;
    },
    close: () => file.close(),
  };
}
