import { CheckpointError } from "./errors.ts";
import type { Folder } from "./folder.ts";
import { readJsonObject } from "./json.ts";
import { type SafetensorsFile, type StoredTensor, type TensorInfo, openSafetensors } from "./safetensors.ts";

/** The tensors of a model folder, in one file or many. */
export interface Checkpoint {
  readonly name: string;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  read(name: string): Promise<StoredTensor>;
  close(): Promise<void>;
}

/**
 * Opens model.safetensors, or the shards that model.safetensors.index.json names. Throws CheckpointError: NOT_FOUND, MISSING for
 * a tensor that its shard lacks, PICKLE where only pytorch_model.bin is there.
 */
export async function openCheckpoint(folder: Folder): Promise<Checkpoint> {
  if (await folder.has("model.safetensors")) return openSafetensors(await folder.open("model.safetensors"));
  if (await folder.has("model.safetensors.index.json")) return openShards(folder);
  if (await folder.has("pytorch_model.bin")) {
    throw new CheckpointError(
      "PICKLE",
      `${folder.name}: must hold model.safetensors, found pytorch_model.bin; save it again as safetensors`,
    );
  }
  throw new CheckpointError(
    "NOT_FOUND",
    `${folder.name}: must hold model.safetensors or model.safetensors.index.json, found neither`,
    {
      folder: folder.name,
    },
  );
}

async function openShards(folder: Folder): Promise<Checkpoint> {
  const index = await readJsonObject(folder, "model.safetensors.index.json");
  const weightMap = Object.entries((index["weight_map"] ?? {}) as Record<string, unknown>);
  const shards = new Map<string, SafetensorsFile>();
  const tensors = new Map<string, TensorInfo>();
  const shardOf = new Map<string, SafetensorsFile>();
  for (const [name, shard] of weightMap) {
    if (typeof shard !== "string" || /[/\\]|^\.\.?$/.test(shard)) {
      const found = JSON.stringify(shard);
      throw new CheckpointError(
        "CORRUPT",
        `${folder.name}/model.safetensors.index.json: "${name}" must name a file of the folder, got ${found}`,
      );
    }
    let file = shards.get(shard);
    if (!file) shards.set(shard, (file = await openSafetensors(await folder.open(shard))));
    const info = file.tensors.get(name);
    if (!info)
      throw new CheckpointError("MISSING", `${folder.name}/${shard}: must hold tensor "${name}", found none`, { name });
    tensors.set(name, info);
    shardOf.set(name, file);
  }
  return {
    name: folder.name,
    tensors,
    async read(name) {
      const file = shardOf.get(name);
      if (!file)
        throw new CheckpointError("MISSING", `${folder.name}: must hold tensor "${name}", found none`, { name });
      return file.read(name);
    },
    async close() {
      for (const file of shards.values()) await file.close();
    },
  };
}
