import { CheckpointError } from "./errors.ts";

/** `name` or `organisation/name`, as the Hub allows them. */
const REPOSITORY = /^\w[\w.-]*(?:\/\w[\w.-]*)?$/;

/**
 * The folder of a model: a path or URL as it is, or the snapshot of `org/name` in the local Hugging Face cache (HF_HUB_CACHE,
 * HUGGINGFACE_HUB_CACHE, HF_HOME, XDG_CACHE_HOME, ~/.cache). `revision` is a branch, a tag or a commit. Nothing is downloaded.
 * Throws CheckpointError NOT_FOUND that says where it looked.
 */
export async function resolveModelFolder(dirOrRepo: string, { revision = "main" } = {}): Promise<string> {
  if (/^https?:\/\//.test(dirOrRepo) || typeof process === "undefined") return dirOrRepo;
  const { readFile, stat } = await import("node:fs/promises");
  const path = await import("node:path");
  const exists = (place: string): Promise<boolean> =>
    stat(place).then(
      () => true,
      () => false,
    );

  if (await exists(dirOrRepo)) return dirOrRepo;
  const looked = [dirOrRepo];
  if (REPOSITORY.test(dirOrRepo)) {
    const repository = path.join(await cacheFolder(), `models--${dirOrRepo.replace("/", "--")}`);
    const commit = await readFile(path.join(repository, "refs", revision), "utf8").catch(() => revision);
    const snapshot = path.join(repository, "snapshots", commit.trim());
    if (await exists(snapshot)) return snapshot;
    looked.push(snapshot);
  }
  throw new CheckpointError(
    "NOT_FOUND",
    `${dirOrRepo}: must be a folder or a model in the Hugging Face cache, found nothing at ${looked.join(" or ")}`,
    { looked, revision },
  );
}

async function cacheFolder(): Promise<string> {
  const { homedir } = await import("node:os");
  const path = await import("node:path");
  const { HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME, XDG_CACHE_HOME } = process.env;
  const home = HF_HOME ?? path.join(XDG_CACHE_HOME ?? path.join(homedir(), ".cache"), "huggingface");
  return HF_HUB_CACHE ?? HUGGINGFACE_HUB_CACHE ?? path.join(home, "hub");
}
