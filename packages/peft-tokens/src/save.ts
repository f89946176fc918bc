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
import { type PeftConfig, tokensOf } from "./registry.ts";
import { lostRows, storedTables } from "./tables.ts";

export interface SaveOptions {
  /** All adapters by default. */
  readonly selectedAdapters?: readonly string[];
  /** Whole tables too: always, never, or when rows that a resize added are in no adapter ("auto", the default). */
  readonly saveEmbeddingLayers?: boolean | "auto";
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
  for (const name of names)
    files.set(`${folderOf(name)}${TENSOR_FILE}`, writeSafetensors(await tensorFile(adapters, name, options)));
  files.set("README.md", readmeCard(adapters.known(names[0]!).config));
  for (const name of names)
    files.set(
      `${folderOf(name)}${CONFIG_FILE}`,
      stringifyPythonJson(configFile(adapters, adapters.known(name).config)),
    );
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
