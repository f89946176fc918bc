import { CheckpointError } from "@neolog/checkpoint";
import { mkdir, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";

const PARTIAL = ".neolog-partial";

/** Throws CheckpointError IS_FILE where `out` cannot become a folder. Writes nothing. */
export async function checkTarget(out: string): Promise<void> {
  for (let path = out; ; path = dirname(path)) {
    const found = await stat(path).catch(() => null);
    if (found?.isDirectory()) return;
    if (found)
      throw new CheckpointError("IS_FILE", `${path}: must be a folder to write to, found a file`, { folder: path });
    if (dirname(path) === path) return;
  }
}

/**
 * Fills the folder `out` so that no reader and no kill ever sees half of it: `write` fills a hidden folder beside its place; then
 * it takes the name `out`, or, where `out` holds files already, its files move in one by one, `mark` last. Until `mark` is there
 * the folder counts as holding nothing. On failure nothing changes.
 */
export async function publish(out: string, mark: string, write: (dir: string) => Promise<void>): Promise<void> {
  await checkTarget(out);
  const existing = await readdir(out).catch(() => null);
  const inPlace = existing !== null && existing.some((name) => name !== PARTIAL);
  const partial = inPlace ? join(out, PARTIAL) : `${out}${PARTIAL}`;
  await rm(partial, { recursive: true, force: true });
  await mkdir(partial, { recursive: true });
  try {
    await write(partial);
    if (inPlace) await moveInto(out, partial, mark);
    else await rename(partial, out);
  } finally {
    await rm(partial, { recursive: true, force: true });
  }
}

async function moveInto(out: string, partial: string, mark: string): Promise<void> {
  await rm(join(out, mark), { force: true });
  const names = await readdir(partial);
  for (const name of [...names.filter((name) => name !== mark), mark]) {
    await rm(join(out, name), { recursive: true, force: true });
    await rename(join(partial, name), join(out, name));
  }
}

/** Throws CheckpointError where `file` cannot be written: it is a folder, or its folder is missing. Writes nothing. */
export async function checkFileTarget(file: string): Promise<void> {
  if ((await stat(file).catch(() => null))?.isDirectory()) {
    throw new CheckpointError("IS_FILE", `${file}: must be a file to write to, found a folder`, { file });
  }
  await checkTarget(dirname(file));
}

/** Writes a file under a temporary name beside its own, then renames it. */
export async function writeFileAtomically(file: string, content: Uint8Array): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  const partial = `${file}${PARTIAL}`;
  try {
    await writeFile(partial, content);
    await rename(partial, file);
  } finally {
    await rm(partial, { force: true });
  }
}
