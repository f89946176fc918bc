import {
  type Checkpoint,
  CheckpointError,
  type Folder,
  openCheckpoint,
  openFolder,
  readJsonObject,
  readText,
  resolveModelFolder,
  readTensor,
} from "@neolog/checkpoint";
import { adoptStateDict, checkStateDict, stateDict } from "@neolog/nn";
import { type DType, type Tensor, persist, withShapesOnly } from "@neolog/tensor";
import { type PretrainedConfig, parseGenerationConfig } from "./config.ts";
import type { PreTrainedModel } from "./preTrainedModel.ts";
import { type Architecture, architectureOf } from "./registry.ts";

export interface FromPretrainedOptions {
  /** Convert all weights to this dtype; as stored when absent. */
  readonly dtype?: DType | undefined;
  /** Called after each tensor that was read. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

/**
 * Loads a model from a Hugging Face folder: config.json, model.safetensors or its shards, generation_config.json. Strict: every
 * key and shape must fit, and `accept` must take the model that the config describes. Throws CheckpointError, ModelConfigError or
 * StateDictError; no tensor stays behind then.
 */
export async function fromPretrained<M extends PreTrainedModel>(
  dirOrRepo: string,
  options: FromPretrainedOptions,
  accept: (model: PreTrainedModel, file: string) => M,
): Promise<M> {
  const folder = await openFolder(await resolveModelFolder(dirOrRepo));
  const config = (await readJsonObject(folder, "config.json")) as PretrainedConfig;
  const file = `${folder.name}/config.json`;
  const architecture = architectureOf(config, file);
  const generationConfig = await generationConfigOf(folder);
  const checkpoint = await openCheckpoint(folder);
  try {
    const model = withShapesOnly(() => accept(architecture.create(config, file), file)); // the weights come from the checkpoint
    model.generationConfig = generationConfig;
    await loadWeights(model, architecture, checkpoint, options);
    if (options.dtype) {
      model.config = { ...config, ["torch_dtype" in config ? "torch_dtype" : "dtype"]: options.dtype };
    }
    return model;
  } finally {
    await checkpoint.close();
  }
}

/** Puts the checkpoint's tensors into the model, or disposes both. */
async function loadWeights(
  model: PreTrainedModel,
  architecture: Architecture,
  checkpoint: Checkpoint,
  { dtype, onProgress }: FromPretrainedOptions,
): Promise<void> {
  const state = new Map<string, Tensor>();
  try {
    const names = checkpointNames(model, checkpoint, architecture);
    const shapes = new Map([...names].map(([key, name]) => [key, checkpoint.tensors.get(name)!.shape]));
    checkStateDict(model, shapes, checkpoint.name);
    await checkTies(model, checkpoint, names);
    for (const [key, name] of names) {
      state.set(key, persist(await readTensor(checkpoint, name, { dtype })));
      onProgress?.(state.size, names.size);
    }
    adoptStateDict(model, state);
  } catch (error) {
    for (const t of [...model.parameters(), ...state.values()]) t.dispose();
    throw error;
  }
}

/** Module key → name in the checkpoint, which may lack the base model's prefix or hold a tied head and buffers besides. */
function checkpointNames(
  model: PreTrainedModel,
  checkpoint: Checkpoint,
  { basePrefix, ignored }: Architecture,
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

/** A tied head that the checkpoint stores all the same must be the embedding. Throws CheckpointError TIED_DISAGREE. */
async function checkTies(
  model: PreTrainedModel,
  checkpoint: Checkpoint,
  names: ReadonlyMap<string, string>,
): Promise<void> {
  for (const name of model.tiedPaths.map((path) => `${path}.weight`)) {
    if (!checkpoint.tensors.has(name)) continue;
    const table = names.get(`${model.embeddingPath}.weight`)!;
    const [head, embedding] = [await checkpoint.read(name), await checkpoint.read(table)];
    if (head.bytes.length === embedding.bytes.length && head.bytes.every((x, i) => x === embedding.bytes[i])) continue;
    throw new CheckpointError(
      "TIED_DISAGREE",
      `${checkpoint.name}: "${name}" must equal "${table}", to which the config ties it, found other values; ` +
        `set tie_word_embeddings to false to keep both`,
      { name, table },
    );
  }
}

async function generationConfigOf(folder: Folder) {
  const file = "generation_config.json";
  return (await folder.has(file))
    ? parseGenerationConfig(await readText(folder, file), `${folder.name}/${file}`)
    : null;
}
