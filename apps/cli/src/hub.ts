import { CheckpointError, cachedRepository, isRepository, openFolder, resolveModelFolder } from "@neolog/checkpoint";
import { mkdir, stat, symlink, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { CliError } from "./errors.ts";
import { type Blobs, type RemoteFile, fetchBlob } from "./hubBlob.ts";
import type { Output } from "./output.ts";

const HUB_URL = "https://huggingface.co";
const TEXTS = [
  "config.json",
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "chat_template.jinja",
  "adapter_config.json",
  "adapter_model.safetensors",
];
const SHARD = /^model-\d{5}-of-\d{5}\.safetensors$/;
const INDEX = "model.safetensors.index.json";

const isSet = (variable: string): boolean => /^(1|true|yes|on)$/i.test(process.env[variable] ?? "");

/**
 * The folder of a model on this machine: a path as it is, or a snapshot of the Hugging Face cache, fetched first where the cache
 * lacks it. Throws CheckpointError NOT_FOUND in one line where it cannot be had.
 */
export async function modelFolder(dirOrRepo: string, output: Output, revision?: string): Promise<string> {
  try {
    const folder = await resolveModelFolder(dirOrRepo, { revision });
    if (folder === dirOrRepo || isSet("HF_HUB_OFFLINE") || (await hasWeights(folder))) return folder;
  } catch (error) {
    if (!(error instanceof CheckpointError && isRepository(dirOrRepo)) || (await isTaken(dirOrRepo))) throw error;
  }
  return download(dirOrRepo, output, revision);
}

/** A name such as "models/llama" whose first part is a folder here means a path. */
const isTaken = (name: string): Promise<boolean> =>
  stat(dirname(name)).then(
    (found) => dirname(name) !== "." && found.isDirectory(),
    () => false,
  );

async function hasWeights(dir: string): Promise<boolean> {
  const files = await (await openFolder(dir)).list();
  if (files.includes("adapter_model.safetensors") || files.includes("model.safetensors")) return true;
  const shards = files.filter((file) => SHARD.test(file));
  return files.includes(INDEX) && shards.length > 0 && shards.length === Number(/-of-(\d+)/.exec(shards[0]!)![1]);
}

/**
 * Fetches what this program reads of a model into the Hugging Face cache, where Python finds it too: texts, safetensors and their
 * index. What is there stays, what broke off goes on, and every file's hash is checked. HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE
 * are heeded. → the snapshot's folder. Throws CheckpointError NOT_FOUND, PICKLE or CORRUPT.
 */
export async function download(repo: string, output: Output, revision = "main"): Promise<string> {
  const hubUrl = (process.env["HF_ENDPOINT"] || HUB_URL).replace(/\/+$/, "");
  const where = revision === "main" ? repo : `${repo} at ${revision}`;
  const missing = (why: string): CheckpointError =>
    new CheckpointError("NOT_FOUND", `${where}: must be a folder, in the Hugging Face cache, or at ${hubUrl}, ${why}`, {
      repo,
      revision,
    });
  if (!isRepository(repo)) throw missing("got no name of a model");
  if (isSet("HF_HUB_OFFLINE")) throw missing("but it is not in the cache, and HF_HUB_OFFLINE forbids to ask");

  const token = process.env["HF_TOKEN"];
  if (token && !token.startsWith("hf_")) throw new CliError("HF_TOKEN: must begin with hf_, got another text");
  const hub = await import("@huggingface/hub");
  const signal = output.io.signal;
  const access = {
    hubUrl,
    ...(token ? { accessToken: token } : {}),
    fetch: ((url, init) => fetch(url, { ...init, ...(signal ? { signal } : {}) })) as typeof fetch,
  };
  try {
    const { sha: commit } = await hub.modelInfo({ name: repo, revision, additionalFields: ["sha"], ...access });
    const files: RemoteFile[] = [];
    for await (const entry of hub.listFiles({ repo, revision: commit, ...access })) {
      if (entry.type === "file") files.push({ ...entry, sha256: entry.lfs?.oid });
    }
    const wanted = wantedFiles(files, where);
    const repository = await cachedRepository(repo);
    const snapshot = join(repository, "snapshots", commit);
    const total = wanted.reduce((sum, { size }) => sum + size, 0);
    const progress = output.progress("downloading", total, "bytes");
    try {
      let before = 0;
      for (const file of wanted) {
        const blobs: Blobs = {
          folder: join(repository, "blobs"),
          open: async () => hub.downloadFile({ repo, path: file.path, revision: commit, ...access }),
        };
        const blob = await fetchBlob(file, blobs, where, (bytes) => progress.update(before + bytes, file.path));
        before += file.size;
        await link(blob, join(snapshot, file.path));
      }
    } finally {
      progress.stop();
    }
    if (revision !== commit) await writeRef(join(repository, "refs", revision), commit);
    return snapshot;
  } catch (error) {
    throw await explained(error, missing);
  }
}

/** One file of weights where there is one, else the shards. */
function wantedFiles(files: readonly RemoteFile[], where: string): RemoteFile[] {
  const names = new Set(files.map(({ path }) => path));
  const isWeights = names.has("model.safetensors")
    ? (path: string) => path === "model.safetensors"
    : (path: string) => path === INDEX || SHARD.test(path);
  const wanted = files.filter(({ path }) => TEXTS.includes(path) || isWeights(path));
  if (wanted.some(({ path }) => path.endsWith(".safetensors"))) return wanted;
  const pickle = [...names].find((name) => name.startsWith("pytorch_model") && name.endsWith(".bin"));
  throw new CheckpointError(
    pickle ? "PICKLE" : "NOT_FOUND",
    `${where}: must hold model.safetensors or ${INDEX}, found ${pickle ? `only ${pickle}; a pickle can run code, so save it again in Python with model.save_pretrained(dir)` : "neither"}`,
  );
}

/** A link to the blob, as huggingface_hub makes it. */
async function link(blob: string, place: string): Promise<void> {
  await mkdir(dirname(place), { recursive: true });
  await symlink(relative(dirname(place), blob), place).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "EEXIST") throw error;
  });
}

async function writeRef(file: string, commit: string): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, commit);
}

/** What went wrong on the way, in words that say what to do. */
async function explained(error: unknown, missing: (why: string) => Error): Promise<unknown> {
  const { HubApiError } = await import("@huggingface/hub");
  if (error instanceof HubApiError) {
    if (error.statusCode === 401 || error.statusCode === 403)
      return missing("which answers that it needs a token with access; set HF_TOKEN");
    if (error.statusCode === 404) return missing("which answers that there is no such model or revision");
    return missing(`which answers HTTP ${error.statusCode}`);
  }
  if (error instanceof TypeError && error.message === "fetch failed") {
    const cause = error.cause as (Error & { readonly code?: string }) | undefined;
    return missing(`but no answer came from there (${cause?.code ?? cause?.message ?? error.message})`);
  }
  return error;
}
