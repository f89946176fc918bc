import { CheckpointError } from "@neolog/checkpoint";
import { type Hash, createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, open, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";

/** A file of a repository as the Hub lists it. */
export interface RemoteFile {
  readonly path: string;
  readonly size: number;
  /** Git's hash of the file, or of its pointer where it is large. */
  readonly oid?: string | undefined;
  /** Of a large file's content. */
  readonly sha256?: string | undefined;
}

/** Where blobs lie, and how one is opened at the Hub. */
export interface Blobs {
  readonly folder: string;
  readonly open: () => Promise<Blob | null>;
}

/**
 * A file of the repository as a blob of the cache, named by its hash; what an earlier try left goes on where it broke off. The
 * content is hashed as it comes. → its path. Throws CheckpointError CORRUPT where it is another content than the Hub lists, and
 * NOT_FOUND where the connection breaks off: what came stays for the next try.
 */
export async function fetchBlob(
  file: RemoteFile,
  { folder, open: openRemote }: Blobs,
  where: string,
  onBytes: (bytes: number) => void,
): Promise<string> {
  const name = file.sha256 ?? file.oid;
  if (!name || !/^[0-9a-f]{40,64}$/.test(name))
    throw new CheckpointError("CORRUPT", `${where}: ${file.path} must be listed with its hash, got ${name}`);
  const final = join(folder, name);
  if (await stat(final).catch(() => null)) return final;
  await mkdir(folder, { recursive: true });

  const partial = `${final}.incomplete`;
  const hash = hasherOf(file);
  let bytes = await hashExisting(partial, hash, file.size);
  onBytes(bytes);
  const out = await open(partial, "a");
  try {
    const blob = bytes < file.size ? await openRemote() : null;
    if (bytes < file.size && !blob) throw brokenOff(where, file, bytes, "the Hub no longer has it");
    if (blob) {
      for await (const piece of (bytes === 0 ? blob : blob.slice(bytes)).stream()) {
        await out.write(piece);
        hash.update(piece);
        bytes += piece.byteLength;
        onBytes(bytes);
      }
    }
    await out.sync();
  } catch (error) {
    if (error instanceof CheckpointError || (error as Error).name === "AbortError") throw error;
    throw brokenOff(where, file, bytes, error instanceof Error ? error.message : String(error));
  } finally {
    await out.close();
  }
  const found = hash.digest("hex");
  if (bytes < file.size) throw brokenOff(where, file, bytes, "the connection ended");
  if (bytes > file.size || found !== name) {
    await rm(partial);
    throw new CheckpointError(
      "CORRUPT",
      `${where}: ${file.path} must have the ${file.size} bytes and hash ${name} that the Hub lists, ` +
        `got ${bytes} and ${found}; it is thrown away, try again`,
      { file: file.path, expected: name, found },
    );
  }
  await rename(partial, final);
  return final;
}

/** SHA-256 of a large file; of others what git computes: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects */
const hasherOf = ({ sha256, size }: RemoteFile): Hash =>
  sha256 ? createHash("sha256") : createHash("sha1").update(`blob ${size}\0`);

/** Bytes that an earlier try left, hashed; more than the file has are no part of it, and go. */
async function hashExisting(partial: string, hash: Hash, size: number): Promise<number> {
  const found = await stat(partial).catch(() => null);
  if (!found) return 0;
  if (found.size > size) {
    await rm(partial);
    return 0;
  }
  for await (const piece of createReadStream(partial)) hash.update(piece as Uint8Array);
  return found.size;
}

const brokenOff = (where: string, { path, size }: RemoteFile, bytes: number, why: string): CheckpointError =>
  new CheckpointError(
    "NOT_FOUND",
    `${where}: ${path} must arrive whole, got ${bytes} of ${size} bytes (${why}); run it again to go on from there`,
    { file: path, bytes, size },
  );
