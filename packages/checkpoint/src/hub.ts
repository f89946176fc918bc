import { CheckpointError } from "./errors.ts";

/** `name` or `organisation/name`, as the Hub allows them. */
export const isRepository = (name: string): boolean => /^\w[\w.-]*(?:\/\w[\w.-]*)?$/.test(name);

export interface RevisionOptions {
  /** A branch, a tag or a commit of a model in the Hugging Face cache; "main" by default. */
  readonly revision?: string | undefined;
}

/**
 * The folder of a model: a path or URL as it is, or the snapshot of `org/name` in the local Hugging Face cache (HF_HUB_CACHE,
 * HUGGINGFACE_HUB_CACHE, HF_HOME, XDG_CACHE_HOME, ~/.cache). Nothing is downloaded. Throws CheckpointError NOT_FOUND that says
 * where it looked.
 */
export async function resolveModelFolder(
  dirOrRepo: string,
  { revision = "main" }: RevisionOptions = {},
): Promise<string> {
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
  if (isRepository(dirOrRepo)) {
    const repository = await cachedRepository(dirOrRepo);
    const inside = (part: string): boolean => part !== "" && !/(?:^|[/\\])\.\.?(?:$|[/\\])/.test(part);
    const commit = inside(revision)
      ? await readFile(path.join(repository, "refs", revision), "utf8").catch(() => revision)
      : "";
    const snapshot = path.join(repository, "snapshots", commit.trim());
    if (inside(commit) && (await exists(snapshot))) return snapshot;
    looked.push(snapshot);
  }
  throw new CheckpointError(
    "NOT_FOUND",
    `${dirOrRepo}: must be a folder or a model in the Hugging Face cache, found nothing at ${looked.join(" or ")}` +
      (looked.length > 1 ? `; "neolog download ${dirOrRepo}" fetches it` : ""),
    { looked, revision },
  );
}

/** Where the cache keeps `org/name`: a folder with blobs, refs and snapshots, which need not exist. */
export async function cachedRepository(name: string): Promise<string> {
  const path = await import("node:path");
  const { HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE } = process.env;
  const hub = HF_HUB_CACHE ?? HUGGINGFACE_HUB_CACHE ?? path.join(await cacheHome(), "hub");
  return path.join(hub, `models--${name.replace("/", "--")}`);
}

/** Where Hugging Face's tools keep what can be made again: HF_HOME, else `huggingface` in XDG_CACHE_HOME or ~/.cache. It need not exist. */
export async function cacheHome(): Promise<string> {
  const { homedir } = await import("node:os");
  const path = await import("node:path");
  const { HF_HOME, XDG_CACHE_HOME } = process.env;
  return HF_HOME ?? path.join(XDG_CACHE_HOME ?? path.join(homedir(), ".cache"), "huggingface");
}
