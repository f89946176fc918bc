import { CheckpointError } from "../errors.ts";
import { type ByteSource, endsEarly } from "./source.ts";

/** One read call of the operating system takes less than 2 GiB. */
const PIECE = 2 ** 30;

/** A file on disk, read by position. Throws CheckpointError NOT_FOUND for what is no readable file. */
export async function fileSource(path: string): Promise<ByteSource> {
  const { open } = await import("node:fs/promises");
  const file = await open(path, "r").catch((error: NodeJS.ErrnoException) => {
    throw notReadable(
      path,
      error.code === "ENOENT" || error.code === "ENOTDIR" ? "nothing" : (error.code ?? error.message),
    );
  });
  const stats = await file.stat();
  if (stats.isDirectory()) {
    await file.close();
    throw notReadable(path, "a folder");
  }
  const readInto = async (offset: number, target: Uint8Array): Promise<void> => {
    const length = target.byteLength;
    for (let at = 0; at < length;) {
      const { bytesRead } = await file.read(target, at, Math.min(PIECE, length - at), offset + at);
      if (bytesRead === 0) throw endsEarly(path, offset, length, at);
      at += bytesRead;
    }
  };
  return {
    name: path,
    size: stats.size,
    async read(offset, length) {
      const bytes = new Uint8Array(length);
      await readInto(offset, bytes);
      return bytes;
    },
    readInto,
    close: () => file.close(),
  };
}

const notReadable = (path: string, found: string): CheckpointError =>
  new CheckpointError("NOT_FOUND", `${path}: must be a readable file, found ${found}`, { file: path });
