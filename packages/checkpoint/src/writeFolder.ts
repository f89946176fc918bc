import type { FileHandle } from "node:fs/promises";
import { CheckpointError } from "./errors.ts";
import type { Written } from "./replaceFiles.ts";

/** A directory path, or files in memory by name. */
export type FolderTarget = string | Map<string, Uint8Array>;

/** What a file is to hold: bytes, text, or bytes that are made as they are written. */
export type FileContent = Uint8Array | string | AsyncIterable<Uint8Array>;

/**
 * Writes files, by their names relative to the target, so that none is ever seen half-written: each goes to a temporary name
 * beside its own, and when all are complete they take their names together; see replaceFiles. A failure leaves everything as it
 * was. Put the file last without which the others mean nothing. The target is created when missing; files directly in it that
 * `obsolete` names and that were not written go.
 * Throws CheckpointError IS_FILE where a file is in the way of a folder or a folder in the way of a file.
 */
export async function writeFolder(
  target: FolderTarget,
  files: ReadonlyMap<string, FileContent>,
  { obsolete = () => false }: { readonly obsolete?: (file: string) => boolean } = {},
): Promise<void> {
  for (const name of files.keys()) {
    if (!name.split(/[/\\]/).some((part) => /^(?:|\.|\.\.|[a-z]:)$/i.test(part))) continue;
    const where = typeof target === "string" ? target : "files in memory";
    throw new CheckpointError("UNEXPECTED", `${where}: a file must lie inside the folder, got "${name}"`, {
      file: name,
    });
  }
  const gone = (file: string): boolean => obsolete(file) && !files.has(file);
  if (typeof target === "string") return writeDisk(target, files, gone);
  const complete: [name: string, bytes: Uint8Array][] = [];
  for (const [name, content] of files) complete.push([name, await collect(content)]);
  for (const [name, bytes] of complete) target.set(name, bytes);
  for (const name of [...target.keys()].filter(gone)) target.delete(name);
}

async function writeDisk(
  target: string,
  files: ReadonlyMap<string, FileContent>,
  gone: (file: string) => boolean,
): Promise<void> {
  const { mkdir, open, readdir, rm, rmdir, stat } = await import("node:fs/promises");
  const { replaceFiles } = await import("./replaceFiles.ts");
  const path = await import("node:path");
  const created: string[] = [];
  const written: Written[] = [];

  async function createFolder(folder: string): Promise<void> {
    const entry = await stat(folder).catch(() => null);
    if (entry?.isDirectory()) return;
    if (entry) throw inTheWay(folder, "a folder", "a file");
    await createFolder(path.dirname(folder));
    await mkdir(folder);
    created.push(folder);
  }

  try {
    await createFolder(path.resolve(target));
    for (const [name, content] of files) {
      const final = path.resolve(target, name);
      await createFolder(path.dirname(final));
      if ((await stat(final).catch(() => null))?.isDirectory()) throw inTheWay(final, "a file", "a folder");
      const temporary = `${final}.${crypto.randomUUID()}.tmp`;
      written.push({ temporary, final });
      await writeFile(await open(temporary, "wx"), content);
    }
    const left = (await readdir(target)).filter(gone).map((name) => path.resolve(target, name));
    await replaceFiles(written, left);
  } catch (error) {
    for (const { temporary } of written) await rm(temporary, { force: true });
    for (const folder of created.toReversed()) await rmdir(folder).catch(() => {});
    throw error;
  }
}

async function writeFile(file: FileHandle, content: FileContent): Promise<void> {
  try {
    for await (const piece of pieces(content)) await file.writeFile(piece);
    await file.sync();
  } finally {
    await file.close();
  }
}

async function* pieces(content: FileContent): AsyncGenerator<Uint8Array, void, undefined> {
  if (typeof content === "string") yield new TextEncoder().encode(content);
  else if (content instanceof Uint8Array) yield content;
  else yield* content;
}

async function collect(content: FileContent): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for await (const piece of pieces(content)) parts.push(piece.slice());
  const bytes = new Uint8Array(parts.reduce((total, part) => total + part.byteLength, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.byteLength;
  }
  return bytes;
}

const inTheWay = (path: string, mustBe: string, found: string): CheckpointError =>
  new CheckpointError("IS_FILE", `${path}: must be ${mustBe} to write to, found ${found}`, { path });
