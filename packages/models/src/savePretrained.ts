import {
  type FileContent,
  type FolderTarget,
  type LazyTensor,
  STORED_DTYPE,
  fromTensor,
  isWeightsFile,
  shardIndex,
  splitIntoShards,
  storedByteLength,
  streamSafetensors,
  stringifyPythonJson,
  writeFolder,
} from "@neolog/checkpoint";
import { stateDict } from "@neolog/nn";
import { configText } from "./configFile.ts";
import type { PreTrainedModel } from "./preTrainedModel.ts";

export interface SavePretrainedOptions {
  /** Bytes of tensors in a file at most, as a number or a text such as "5GB"; "50GB" by default, as in transformers. */
  readonly maxShardSize?: number | string | undefined;
}

/**
 * Writes config.json, model.safetensors (above `maxShardSize` its shards and their index) and, where the model came with one,
 * generation_config.json; none is ever seen half-written, and weights that the folder held before go. Every tensor keeps its
 * dtype; a tied head is not stored. Throws CheckpointError where the target is a file.
 */
export async function savePretrained(
  model: PreTrainedModel,
  dir: FolderTarget,
  { maxShardSize = "50GB" }: SavePretrainedOptions = {},
): Promise<void> {
  const tensors = [...stateDict(model)].map(([key, t]) => {
    const read = async (): Promise<Uint8Array> => (await fromTensor(t)).bytes;
    return [
      model.checkpointName(key),
      { dtype: STORED_DTYPE[t.dtype], shape: t.shape, read } satisfies LazyTensor,
    ] as const;
  });
  const bytesOf = ({ dtype, shape }: LazyTensor): number => storedByteLength(dtype, shape)!;
  const shards = splitIntoShards(tensors, bytesOf, maxShardSize);
  const files = new Map<string, FileContent>();
  for (const [file, shard] of shards) files.set(file, streamSafetensors(shard));
  if (shards.size > 1) {
    const total_parameters = model.parameters().reduce((sum, t) => sum + t.size, 0);
    const total_size = tensors.reduce((sum, [, t]) => sum + bytesOf(t), 0);
    const index = shardIndex(shards, { total_parameters, total_size });
    files.set("model.safetensors.index.json", `${stringifyPythonJson(index)}\n`);
  }
  if (model.generationConfig) files.set("generation_config.json", model.generationConfig.text);
  files.set("config.json", configText(model));
  await writeFolder(dir, files, { obsolete: isWeightsFile });
}
