import { CheckpointError } from "@neolog/checkpoint";
import { mkdir, readdir, realpath, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { CliError } from "./errors.ts";

export const PARTIAL = ".neolog-partial";

/** Files that a folder of ours may hold or not: what an earlier content left of them must not stay beside a new one. */
const OPTIONAL = [
  "tokenizer.json",
  "tokenizer_config.json",
  "chat_template.jinja",
  "generation_config.json",
  "model.safetensors.index.json",
] as const;

/** Throws CheckpointError IS_FILE where `out` cannot become a folder, CliError where it is one of `sources`. Writes nothing. */
export async function checkTarget(out: string, ...sources: readonly string[]): Promise<void> {
  const real = (path: string): Promise<string> => realpath(path).catch(() => resolve(path));
  for (const source of sources) {
    if ((await real(source)) === (await real(out)))
      throw new CliError(`--out ${out}: must be another folder than those read, got ${source}`);
  }
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
  const beside = `${out.replace(/[/\\]+$/, "")}${PARTIAL}`;
  const inside = join(out, PARTIAL);
  const existing: string[] = await readdir(out).catch(() => []);
  const inPlace = existing.some((name) => name !== PARTIAL);
  const replaces = existing.includes(mark) || existing.includes(PARTIAL);
  for (const left of [beside, inside]) await rm(left, { recursive: true, force: true });
  const partial = inPlace ? inside : beside;
  await mkdir(partial, { recursive: true });
  try {
    await write(partial);
    if (inPlace) await moveInto(out, partial, mark, replaces ? OPTIONAL : []);
    else await rename(partial, out);
  } finally {
    await rm(partial, { recursive: true, force: true });
  }
}

async function moveInto(out: string, partial: string, mark: string, stale: readonly string[]): Promise<void> {
  for (const name of [mark, ...stale]) await rm(join(out, name), { force: true });
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
