import { CheckpointError, brief } from "./errors.ts";
import type { Folder } from "./folder.ts";
import { isJsonObject, readJsonObject } from "./json.ts";
import { type SafetensorsFile, type TensorInfo, missingTensor, openSafetensors } from "./safetensors.ts";
import type { StoredTensor } from "./storedDtype.ts";

/** The tensors of a model folder, in one file or many. */
export interface Checkpoint {
  /** For messages. */
  readonly name: string;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  names(): string[];
  /** Throws CheckpointError MISSING for an unknown name, as `read`. */
  info(name: string): TensorInfo;
  read(name: string): Promise<StoredTensor>;
  /** Its bytes from `begin`, written into `target`, which they fill. */
  readInto(name: string, target: Uint8Array, begin?: number): Promise<void>;
  close(): Promise<void>;
}

const INDEX = "model.safetensors.index.json";
const PICKLES = ["pytorch_model.bin", "pytorch_model.bin.index.json"];

/**
 * Opens model.safetensors, or the shards that model.safetensors.index.json names: their headers are read and checked at once,
 * their tensors on demand. Throws CheckpointError: NOT_FOUND, CORRUPT, MISSING for a tensor that its shard lacks, UNEXPECTED for
 * one that the index does not list there, PICKLE where only pytorch_model.bin is there.
 */
export async function openCheckpoint(folder: Folder): Promise<Checkpoint> {
  if (await folder.has("model.safetensors")) {
    const file = await openSafetensors(await folder.open("model.safetensors"));
    return checkpointOf(file.name, new Map([...file.tensors.keys()].map((name) => [name, file])));
  }
  if (await folder.has(INDEX)) return openShards(folder);
  for (const pickle of PICKLES) {
    if (!(await folder.has(pickle))) continue;
    throw new CheckpointError(
      "PICKLE",
      `${folder.name}: must hold model.safetensors, found ${pickle}; a pickle can run code, so save it again in Python with model.save_pretrained(dir)`,
      { folder: folder.name, found: pickle },
    );
  }
  throw new CheckpointError("NOT_FOUND", `${folder.name}: must hold model.safetensors or ${INDEX}, found neither`, {
    folder: folder.name,
  });
}

async function openShards(folder: Folder): Promise<Checkpoint> {
  const weightMap = await readWeightMap(folder);
  const shards = new Map<string, SafetensorsFile>();
  try {
    for (const shard of new Set(weightMap.values())) {
      shards.set(shard, await openSafetensors(await folder.open(shard)));
    }
    const fileOf = new Map([...weightMap].map(([name, shard]) => [name, shards.get(shard)!]));
    for (const [name, file] of fileOf) if (!file.tensors.has(name)) throw missingTensor(file.name, name);
    for (const [shard, file] of shards) checkListed(folder, shard, file, weightMap);
    return checkpointOf(folder.name, fileOf);
  } catch (error) {
    for (const file of shards.values()) await file.close();
    throw error;
  }
}

/** A shard holds what the index says it holds, and nothing else. Throws CheckpointError UNEXPECTED. */
function checkListed(
  folder: Folder,
  shard: string,
  file: SafetensorsFile,
  weightMap: ReadonlyMap<string, string>,
): void {
  for (const name of file.tensors.keys()) {
    const listed = weightMap.get(name);
    if (listed === shard) continue;
    const problem =
      listed === undefined
        ? `${INDEX} must list every tensor of its shards, found "${name}" in ${shard} besides`
        : `a tensor must be in one shard, found "${name}" in ${listed} and ${shard}`;
    throw new CheckpointError("UNEXPECTED", `${folder.name}: ${problem}`, { name, shard });
  }
}

/** Tensor name → shard, each a file directly in the folder. */
async function readWeightMap(folder: Folder): Promise<Map<string, string>> {
  const { weight_map: weightMap } = await readJsonObject(folder, INDEX);
  const corrupt = (mustHold: string, found: unknown): CheckpointError =>
    new CheckpointError("CORRUPT", `${folder.name}/${INDEX}: ${mustHold}, got ${brief(found)}`, {
      file: INDEX,
    });
  if (!isJsonObject(weightMap)) throw corrupt("weight_map must be an object of file names", weightMap);
  const shardOf = new Map<string, string>();
  for (const [name, shard] of Object.entries(weightMap)) {
    if (typeof shard !== "string" || !/^[^/\\:]+$/.test(shard) || shard === "." || shard === "..") {
      throw corrupt(`weight_map must name a file of the folder for "${name}"`, shard);
    }
    shardOf.set(name, shard);
  }
  return shardOf;
}

function checkpointOf(name: string, fileOf: ReadonlyMap<string, SafetensorsFile>): Checkpoint {
  const tensors = new Map([...fileOf].map(([key, file]) => [key, file.tensors.get(key)!]));
  const fileWith = (key: string): SafetensorsFile => {
    const file = fileOf.get(key);
    if (!file) throw missingTensor(name, key);
    return file;
  };
  return {
    name,
    tensors,
    names: () => [...tensors.keys()],
    info(key) {
      const info = tensors.get(key);
      if (!info) throw missingTensor(name, key);
      return info;
    },
    read: async (key) => fileWith(key).read(key),
    readInto: async (key, target, begin) => fileWith(key).readInto(key, target, begin),
    async close() {
      for (const file of new Set(fileOf.values())) await file.close();
    },
  };
}
