import { rename, rm } from "node:fs/promises";

/** A complete file under a temporary name, and the name that it is to have. */
export interface Written {
  readonly temporary: string;
  readonly final: string;
}

/**
 * Gives written files their names, all or none. First what has those names steps aside, the last file's first, and `obsolete`
 * files; then the new ones take their names in the order given. So the last file, a config or an index, never lies beside
 * files of another time, wherever the process is killed; a failure puts everything back.
 */
export async function replaceFiles(written: readonly Written[], obsolete: readonly string[]): Promise<void> {
  const aside: Written[] = [];
  const placed: string[] = [];
  try {
    for (const final of [...written.map((file) => file.final).toReversed(), ...obsolete]) {
      const temporary = `${final}.${crypto.randomUUID()}.old`;
      if (await moved(final, temporary)) aside.push({ temporary, final });
    }
    for (const { temporary, final } of written) {
      await rename(temporary, final);
      placed.push(final);
    }
  } catch (error) {
    for (const final of placed) await rm(final, { force: true });
    for (const { temporary, final } of aside.toReversed()) await rename(temporary, final);
    throw error;
  }
  for (const { temporary } of aside) await rm(temporary, { force: true }).catch(() => {}); // the new state is there whole
}

/** False where there is nothing to move. */
async function moved(from: string, to: string): Promise<boolean> {
  try {
    await rename(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return false;
    throw error;
  }
}
