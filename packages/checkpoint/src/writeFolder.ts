import { CheckpointError } from "./errors.ts";

/** A directory path, or files in memory by name. */
export type FolderTarget = string | Map<string, Uint8Array>;

/**
 * Writes files, by their names relative to the target, so that none is ever seen half-written: each goes to a temporary name
 * beside its own and is renamed when all are complete. On failure nothing is left behind. Throws CheckpointError IS_FILE.
 */
export async function writeFolder(
  target: FolderTarget,
  files: ReadonlyMap<string, Uint8Array | string>,
): Promise<void> {
  const bytes = new Map(
    [...files].map(([name, content]) => [
      name,
      typeof content === "string" ? new TextEncoder().encode(content) : content,
    ]),
  );
  if (typeof target !== "string") {
    for (const [name, content] of bytes) target.set(name, content);
    return;
  }
  const { mkdir, open, rename, rm, stat } = await import("node:fs/promises");
  const { dirname, join } = await import("node:path");
  const found = await stat(target).catch(() => null);
  if (found && !found.isDirectory()) {
    throw new CheckpointError("IS_FILE", `${target}: must be a folder to write to, found a file`, { folder: target });
  }
  const written: { temporary: string; path: string }[] = [];
  try {
    for (const [name, content] of bytes) {
      const path = join(target, name);
      const temporary = `${path}.${process.pid}.tmp`;
      await mkdir(dirname(path), { recursive: true });
      written.push({ temporary, path });
      const file = await open(temporary, "w");
      try {
        await file.writeFile(content);
        await file.sync();
      } finally {
        await file.close();
      }
    }
    for (const { temporary, path } of written) await rename(temporary, path);
  } catch (error) {
    for (const { temporary } of written) await rm(temporary, { force: true });
    throw error;
  }
}
