import {
  type FolderTarget,
  PythonFloat,
  type StoredTensor,
  fromTensor,
  stringifyPythonJson,
  writeFolder,
  writeSafetensors,
} from "@neolog/checkpoint";
import { ARCHITECTURES } from "@neolog/models";
import { configValue } from "./adaptable.ts";
import type { Adapters } from "./adapters.ts";
import { readmeCard } from "./card.ts";
import { CONFIG_FILE, PREFIX, TENSOR_FILE, fileTensors } from "./keys.ts";
import { oneSidedFiles, oneSidedPlace } from "./oneSided.ts";
import { type PeftConfig, tokensOf } from "./registry.ts";
import { lostRows, storedTables } from "./tables.ts";
import { type TrainingState, trainingStateFiles } from "./trainingState.ts";

export interface SaveOptions {
  /** All adapters by default. */
  readonly selectedAdapters?: readonly string[];
  /** Whole tables too: always, never, or when rows that a resize added are in no adapter ("auto", the default). */
  readonly saveEmbeddingLayers?: boolean | "auto";
  /** Write what training needs to go on to the same bits beside each adapter; see loadTrainingState. */
  readonly trainingState?: TrainingState;
}

/** Writes the named adapters; see PeftModel.savePretrained. */
export async function saveAdapters(
  adapters: Adapters,
  target: FolderTarget,
  names: readonly string[],
  options: SaveOptions,
): Promise<void> {
  const files = new Map<string, Uint8Array | string>();
  const folderOf = (name: string): string => (name === "default" ? "" : `${name}/`);
  const configs = new Map<string, string>();
  for (const name of names) {
    const folder = folderOf(name);
    const oneSided = oneSidedPlace(adapters, name);
    const { config, tensors } = oneSided
      ? await oneSidedFiles(adapters, name, oneSided)
      : { config: adapters.known(name).config, tensors: await tensorFile(adapters, name, options) };
    const keys = oneSided ? new Map([...tensors].map(([key, t]) => [PREFIX + key, t])) : tensors;
    files.set(`${folder}${TENSOR_FILE}`, writeSafetensors(keys));
    configs.set(`${folder}${CONFIG_FILE}`, stringifyPythonJson(configFile(adapters, config)));
    if (!options.trainingState) continue;
    for (const [file, content] of await trainingStateFiles(adapters, name, options.trainingState))
      files.set(`${folder}${file}`, content);
  }
  const isOneSided = oneSidedPlace(adapters, names[0]!) !== null;
  files.set("README.md", readmeCard(adapters.known(names[0]!).config, isOneSided));
  for (const [file, text] of configs) files.set(file, text);
  await writeFolder(target, files);
}

async function tensorFile(adapters: Adapters, name: string, options: SaveOptions): Promise<Map<string, StoredTensor>> {
  const tensors = new Map<string, StoredTensor>();
  for (const [key, t] of fileTensors(adapters, name)) tensors.set(PREFIX + key, await fromTensor(t));
  if (!savesTables(adapters, name, options)) return tensors;
  for (const [key, table] of await storedTables(adapters, name)) tensors.set(PREFIX + key, table);
  return tensors;
}

function configFile({ root }: Adapters, config: PeftConfig): Record<string, unknown> {
  if (config.isFromFile) return withFloats(config.toJSON());
  const type = configValue(root, "model_type");
  const known = typeof type === "string" && Object.hasOwn(ARCHITECTURES, type) ? ARCHITECTURES[type]! : null;
  const auto_mapping = config.auto_mapping ?? (config.task_type === null ? (known?.transformers ?? null) : null);
  return withFloats({ ...config.toJSON(), auto_mapping, inference_mode: true });
}

/** Python writes what it holds as a float with a decimal point. */
function withFloats(json: Record<string, unknown>): Record<string, unknown> {
  const { lora_dropout } = json;
  return typeof lora_dropout === "number" ? { ...json, lora_dropout: new PythonFloat(lora_dropout) } : json;
}

function savesTables(adapters: Adapters, name: string, { saveEmbeddingLayers = "auto" }: SaveOptions): boolean {
  if (saveEmbeddingLayers !== "auto") return saveEmbeddingLayers;
  const lost = lostRows(adapters, new Set(tokensOf(adapters.known(name).config)));
  if (lost.length === 0) return false;
  adapters.warn(
    "EMBEDDINGS_SAVED",
    `savePretrained: ${lost.length} rows that resizing added are not in ${name}; the whole tables are saved with it`,
  );
  return true;
}
