import { type StoredTensor, fromTensor } from "@neolog/checkpoint";
import { Conv1D, Linear } from "@neolog/nn";
import { Scope, cast, zeros } from "@neolog/tensor";
import type { Adapters } from "./adapters.ts";
import { TrainableTokensConfig } from "./config.ts";
import type { Side } from "./effective.ts";
import { ConfigError } from "./errors.ts";
import type { TrainableTokensLayer } from "./layer.ts";
import { LoraConfig } from "./lora/config.ts";
import type { AdapterFile } from "./readFolder.ts";
import type { PeftConfig } from "./registry.ts";
import { tieOf } from "./ties.ts";
import { moduleNames, plainAt } from "./wrap.ts";

const ROWS = "token_adapter.trainable_tokens_delta";

/** Rows that hold on one side of a tie. */
interface OneSided {
  readonly side: Side;
  readonly embedding: string;
  readonly head: string;
  readonly layer: TrainableTokensLayer;
}

/** The place of an adapter whose rows hold on one side of a tie, or null for other adapters. */
export function oneSidedPlace(adapters: Adapters, name: string): OneSided | null {
  const { root, tokenLayers } = adapters;
  if (adapters.known(name).config.peft_type !== "TRAINABLE_TOKENS") return null;
  const places = [...tokenLayers()].filter(([, layer]) => layer.has(name));
  for (const [path, layer] of places) {
    const side = layer.sidesOf(name);
    const tie = tieOf(root, path);
    if (side === "both" || !tie || tie.head === null || !tie.tied.includes(tie.head)) continue;
    if (places.length === 1) return { side, embedding: path, head: tie.head, layer };
    const message = `savePretrained: rows on one side of ${path} can be saved alone only, got rows of ${places.length} modules`;
    throw new ConfigError("UNSUPPORTED", message, { name });
  }
  return null;
}

/**
 * What PEFT can hold such rows as: token rows of one module beside LoRA of rank 1 that is 0. Lists that differ keep the two ends apart,
 * so that on the input side the head has the base's row of a token that the adapter leaves alone.
 */
export async function oneSidedFiles(
  adapters: Adapters,
  name: string,
  { side, embedding, head, layer }: OneSided,
): Promise<{ config: LoraConfig; tensors: Map<string, StoredTensor> }> {
  using _temporary = new Scope();
  const { root } = adapters;
  const { base_model_name_or_path, revision, task_type, auto_mapping } = adapters.known(name).config;
  const ids = [...layer.indicesOf(name)];
  const rows = await fromTensor(layer.trainable_tokens_delta[name]!);
  const module = moduleNames(root).find((path) => {
    const plain = plainAt(root, path);
    return (plain instanceof Linear || plain instanceof Conv1D) && path !== head;
  });
  if (module === undefined)
    throw new ConfigError("UNSUPPORTED", "savePretrained: one-sided rows need a Linear to write them, got none");
  const weight = plainAt(root, module) as Linear | Conv1D;
  const [first, second] = weight.weight.shape as [number, number];
  const [out, inner] = weight instanceof Conv1D ? [second, first] : [first, second];
  const { backend } = layer;
  const tensors = new Map([
    [`${module}.lora_A.weight`, await fromTensor(zeros([1, inner], "float32", backend))],
    [`${module}.lora_B.weight`, await fromTensor(zeros([out, 1], "float32", backend))],
    [`${side === "input" ? embedding : head}.${ROWS}`, rows],
  ]);
  const lists: Record<string, number[]> = { [side === "input" ? embedding : head]: ids };
  if (side === "input") {
    const free = Array.from({ length: layer.num_embeddings }, (_, id) => id).find((id) => !ids.includes(id));
    if (free === undefined)
      throw new ConfigError(
        "UNSUPPORTED",
        "savePretrained: one-sided rows need a token that they leave alone, got none",
      );
    lists[head] = [free];
    tensors.set(`${head}.${ROWS}`, await fromTensor(cast(layer.source.rows(Int32Array.of(free)), "float32")));
  }
  const config = new LoraConfig({
    r: 1,
    lora_alpha: 1,
    target_modules: [module],
    fan_in_fan_out: weight instanceof Conv1D,
    trainable_token_indices: lists,
    base_model_name_or_path,
    revision,
    task_type,
    auto_mapping,
  });
  return { config, tensors };
}

/** Such files as the adapter that they were: its config, and its rows under their own key. */
export function asOneSided(
  { root }: Adapters,
  side: Side,
  config: PeftConfig,
  file: AdapterFile,
): { config: TrainableTokensConfig; file: AdapterFile } {
  const { embeddingPath, headPath } = root;
  const path = side === "input" ? embeddingPath : headPath;
  const { trainable_token_indices: lists, base_model_name_or_path, revision, task_type } = config as LoraConfig;
  const token_indices = (lists as Readonly<Record<string, readonly number[]>> | null)?.[path ?? ""];
  const rows = file.tensors.get(`${path}.${ROWS}`);
  if (config.peft_type !== "LORA" || !token_indices || !rows || typeof embeddingPath !== "string") {
    const message = `training_state.json: sides "${side}" must belong to rows of ${path} beside LoRA, found none; remove the file to load the adapter without it`;
    throw new ConfigError("ARGUMENT", message, { side });
  }
  return {
    config: new TrainableTokensConfig({
      token_indices,
      target_modules: embeddingPath,
      base_model_name_or_path,
      revision,
      task_type,
    }),
    file: { ...file, tensors: new Map([[`${embeddingPath}.trainable_tokens_delta`, rows]]) },
  };
}
