import {
  type Checkpoint,
  CheckpointError,
  type Folder,
  type RevisionOptions,
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
import { keepStoredConfig } from "./configFile.ts";
import type { PreTrainedModel } from "./preTrainedModel.ts";
import { type Architecture, architectureOf } from "./registry.ts";

export interface FromPretrainedOptions extends RevisionOptions {
  /** Convert all weights to this dtype; as stored when absent. */
  readonly dtype?: DType | undefined;
  /** Called, and awaited, after each tensor that was read, with tensors and with bytes of the checkpoint. */
  readonly onProgress?: ((done: number, total: number, bytes: number, totalBytes: number) => unknown) | undefined;
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
  const folder = await openFolder(await resolveModelFolder(dirOrRepo, options));
  const config = (await readJsonObject(folder, "config.json")) as PretrainedConfig;
  const file = `${folder.name}/config.json`;
  const architecture = architectureOf(config, file);
  const generationConfig = await generationConfigOf(folder);
  const checkpoint = await openCheckpoint(folder);
  try {
    const model = withShapesOnly(() => accept(architecture.create(config, file), file)); // the weights come from the checkpoint
    model.generationConfig = generationConfig;
    keepStoredConfig(model, await readJsonObject(folder, "config.json", { exact: true }));
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
    for (const name of names.values()) checkFloat(checkpoint, name);
    await checkTies(model, checkpoint, names);
    const sizeOf = (name: string): number => checkpoint.info(name).byteLength;
    const totalBytes = [...names.values()].reduce((sum, name) => sum + sizeOf(name), 0);
    let bytes = 0;
    for (const [key, name] of names) {
      state.set(key, persist(await readTensor(checkpoint, name, { dtype })));
      bytes += sizeOf(name);
      await onProgress?.(state.size, names.size, bytes, totalBytes);
    }
    adoptStateDict(model, state);
  } catch (error) {
    for (const t of [...model.parameters(), ...state.values()]) t.dispose();
    throw error;
  }
}

/**
 * Module key → name in the checkpoint, which may lack the base model's prefix, hold buffers besides, and hold what is tied under
 * any of its names. Throws CheckpointError UNEXPECTED where two names mean one key.
 */
function checkpointNames(
  model: PreTrainedModel,
  checkpoint: Checkpoint,
  { basePrefix, ignored, renamed }: Architecture,
): Map<string, string> {
  const own = new Map([...stateDict(model).keys()].map((key) => [model.checkpointName(key), key]));
  const names = new Map<string, string>();
  const tied = storedTies(model, checkpoint);
  for (const name of checkpoint.tensors.keys()) {
    if (tied.has(name)) continue;
    const today = renamed?.(name) ?? name;
    const known = own.get(today) ?? own.get(basePrefix + today);
    if (known === undefined && ignored?.test(`.${name}`)) continue;
    const key = known ?? today;
    const other = names.get(key);
    if (other !== undefined) {
      throw new CheckpointError(
        "UNEXPECTED",
        `${checkpoint.name}: "${key}" must be stored once, found "${other}" and "${name}"`,
        { key, names: [other, name] },
      );
    }
    names.set(key, name);
  }
  for (const [name, key] of tied) if (!names.has(key)) names.set(key, name);
  return names;
}

/** Names of the checkpoint's tensors that the config ties to another key, and that key. */
const storedTies = (model: PreTrainedModel, checkpoint: Checkpoint): Map<string, string> =>
  new Map([...model.tiedKeys].filter(([name]) => checkpoint.tensors.has(name)));

/** Weights are floats: what is quantized or packed needs another model. Throws CheckpointError DTYPE. */
function checkFloat(checkpoint: Checkpoint, name: string): void {
  const { dtype } = checkpoint.info(name);
  if (FLOATS.has(dtype)) return;
  throw new CheckpointError(
    "DTYPE",
    `${checkpoint.name}: "${name}": a weight must be F64, F32, BF16 or F16, found ${dtype}; ` +
      `a quantized checkpoint must be saved again in Python as one of these`,
    { name, dtype },
  );
}

const FLOATS: ReadonlySet<string> = new Set(["F64", "F32", "BF16", "F16"]);

/** What is tied and stored all the same must be equal. Throws CheckpointError TIED_DISAGREE. */
async function checkTies(
  model: PreTrainedModel,
  checkpoint: Checkpoint,
  names: ReadonlyMap<string, string>,
): Promise<void> {
  for (const [name, key] of storedTies(model, checkpoint)) {
    const table = names.get(key)!;
    if (name === table || (await sameBytes(checkpoint, name, table))) continue;
    throw new CheckpointError(
      "TIED_DISAGREE",
      `${checkpoint.name}: "${name}" must equal "${table}", to which the config ties it, found other values; ` +
        `set tie_word_embeddings to false to keep both`,
      { name, table },
    );
  }
}

/** Bytes of a tensor that are in memory at a time. */
const PIECE = 2 ** 23;

async function sameBytes(checkpoint: Checkpoint, a: string, b: string): Promise<boolean> {
  const { byteLength } = checkpoint.info(a);
  if (checkpoint.info(b).byteLength !== byteLength) return false;
  for (let at = 0; at < byteLength; at += PIECE) {
    const [x, y] = [a, b].map(() => new Uint8Array(Math.min(PIECE, byteLength - at))) as [Uint8Array, Uint8Array];
    await checkpoint.readInto(a, x, at);
    await checkpoint.readInto(b, y, at);
    if (x.some((byte, i) => byte !== y[i])) return false;
  }
  return true;
}

async function generationConfigOf(folder: Folder) {
  const file = "generation_config.json";
  return (await folder.has(file))
    ? parseGenerationConfig(await readText(folder, file), `${folder.name}/${file}`)
    : null;
}
