import {
  type Checkpoint,
  type Folder,
  fromTensor,
  openCheckpoint,
  openFolder,
  readBytes,
  readJsonObject,
  resolveModelFolder,
  stringifyPythonJson,
  toTensor,
  writeFolder,
  writeSafetensors,
} from "@neolog/checkpoint";
import { adoptStateDict, checkStateDict, stateDict } from "@neolog/nn";
import type { DType, Tensor } from "@neolog/tensor";
import type { CausalLM } from "./causalLm.ts";
import type { PretrainedConfig } from "./config.ts";
import { architectureOf } from "./registry.ts";

export interface FromPretrainedOptions {
  /** Convert all weights to this dtype; as stored when absent. */
  readonly dtype?: DType | undefined;
  /** Called after each tensor that was read. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

/** What a model was loaded with, kept so that saving it gives the same files. */
const generationConfigs = new WeakMap<CausalLM, Uint8Array>();

/**
 * Loads a model from a Hugging Face folder: config.json, model.safetensors or its shards, generation_config.json. Strict: every
 * key and shape must fit. Throws CheckpointError, ModelConfigError or StateDictError.
 */
export async function fromPretrained(dirOrRepo: string, options: FromPretrainedOptions = {}): Promise<CausalLM> {
  const folder = await openFolder(await resolveModelFolder(dirOrRepo));
  const config = (await readJsonObject(folder, "config.json")) as PretrainedConfig;
  const file = `${folder.name}/config.json`;
  const { create, basePrefix, ignored } = architectureOf(config, file);
  const model = create(config, file);
  const checkpoint = await openCheckpoint(folder);
  try {
    const names = checkpointNames(model, checkpoint, basePrefix, ignored);
    checkStateDict(model, new Map([...names].map(([key, name]) => [key, checkpoint.tensors.get(name)!.shape])));
    const state = new Map<string, Tensor>();
    for (const [key, name] of names) {
      state.set(
        key,
        toTensor(await checkpoint.read(name), { name, ...(options.dtype ? { dtype: options.dtype } : {}) }),
      );
      options.onProgress?.(state.size, names.size);
    }
    adoptStateDict(model, state);
  } finally {
    await checkpoint.close();
  }
  await rememberGenerationConfig(model, folder);
  return model;
}

/** Module key → name in the checkpoint, which may lack the base model's prefix or hold a tied head and buffers besides. */
function checkpointNames(
  model: CausalLM,
  checkpoint: Checkpoint,
  basePrefix: string,
  ignored?: RegExp,
): Map<string, string> {
  const own = stateDict(model);
  const names = new Map<string, string>();
  for (const name of checkpoint.tensors.keys()) {
    if (model.tiedPaths.some((path) => name === `${path}.weight`)) continue;
    const key = own.has(name) || !own.has(basePrefix + name) ? name : basePrefix + name;
    if (!own.has(key) && ignored?.test(`.${name}`)) continue;
    names.set(key, name);
  }
  return names;
}

async function rememberGenerationConfig(model: CausalLM, folder: Folder): Promise<void> {
  const file = "generation_config.json";
  if (await folder.has(file)) generationConfigs.set(model, await readBytes(folder, file));
}

/** Writes config.json, model.safetensors and, where the model came with one, generation_config.json; a tied head is not stored. */
export async function savePretrained(model: CausalLM, dir: string | Map<string, Uint8Array>): Promise<void> {
  const tensors = [];
  for (const [name, t] of stateDict(model)) tensors.push([name, await fromTensor(t)] as const);
  const generationConfig = generationConfigs.get(model);
  await writeFolder(
    dir,
    new Map<string, Uint8Array | string>([
      ["config.json", `${stringifyPythonJson(model.config)}\n`],
      ["model.safetensors", writeSafetensors(tensors)],
      ...(generationConfig ? ([["generation_config.json", generationConfig]] as const) : []),
    ]),
  );
}
