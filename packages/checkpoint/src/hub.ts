import { CheckpointError } from "./errors.ts";

/**
 * The folder of a model: a directory as it is, or `org/name` in the local Hugging Face cache (HF_HUB_CACHE, HF_HOME,
 * XDG_CACHE_HOME). Nothing is downloaded. Throws CheckpointError NOT_FOUND that says where it looked.
 */
export async function resolveModelFolder(dirOrRepo: string, revision = "main"): Promise<string> {
  if (/^https?:\/\//.test(dirOrRepo) || typeof process === "undefined") return dirOrRepo;
  const { readFile, stat } = await import("node:fs/promises");
  const { homedir } = await import("node:os");
  const { join } = await import("node:path");
  if (await stat(dirOrRepo).catch(() => null)) return dirOrRepo;
  const { HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME, XDG_CACHE_HOME } = process.env;
  const home = HF_HOME ?? join(XDG_CACHE_HOME ?? join(homedir(), ".cache"), "huggingface");
  const cache = HF_HUB_CACHE ?? HUGGINGFACE_HUB_CACHE ?? join(home, "hub");
  const looked = [dirOrRepo];
  if (/^[\w.-]+\/[\w.-]+$/.test(dirOrRepo)) {
    const repo = join(cache, `models--${dirOrRepo.replace("/", "--")}`);
    const commit = await readFile(join(repo, "refs", revision), "utf8").catch(() => revision);
    const snapshot = join(repo, "snapshots", commit.trim());
    if (await stat(snapshot).catch(() => null)) return snapshot;
    looked.push(snapshot);
  }
  throw new CheckpointError(
    "NOT_FOUND",
    `${dirOrRepo}: must be a folder or a cached model, found none at ${looked.join(" or ")}`,
    {
      looked,
    },
  );
}
