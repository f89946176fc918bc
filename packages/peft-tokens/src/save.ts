import {
  type FolderTarget,
  type StoredTensor,
  fromTensor,
  stringifyPythonJson,
  writeFolder,
  writeSafetensors,
} from "@neolog/checkpoint";
import { architectureOf, loadedVocabSize } from "@neolog/models";
import { readmeCard } from "./card.ts";
import type { TrainableTokensConfig } from "./config.ts";
import { CONFIG_FILE, PREFIX, ROWS, TABLE, TENSOR_FILE, listedModules } from "./keys.ts";
import type { TrainableTokensLayer } from "./layer.ts";
import type { PeftModel } from "./model.ts";
import type { OnWarning } from "./warnings.ts";

export interface SaveOptions {
  /** All adapters by default. */
  readonly selectedAdapters?: readonly string[];
  /** Whole tables too: always, never, or when rows that a resize added are in no adapter ("auto", the default). */
  readonly saveEmbeddingLayers?: boolean | "auto";
}

/** The tensors of an adapter's file; tied modules have a copy each. */
async function adapterTensors(peft: PeftModel, name: string, withTables: boolean): Promise<Map<string, StoredTensor>> {
  const tensors = new Map<string, StoredTensor>();
  for (const [path, layer] of peft.layers()) {
    if (!layer.has(name)) continue;
    const rows = await fromTensor(layer.trainable_tokens_delta[name]!);
    for (const module of listedModules(peft, path)) {
      tensors.set(PREFIX + module + ROWS, rows);
      if (withTables) tensors.set(PREFIX + module + TABLE, await storedTable(layer));
    }
  }
  return tensors;
}

/** The table without what is merged into it. */
async function storedTable(layer: TrainableTokensLayer): Promise<StoredTensor> {
  const table = layer.unadaptedTable();
  const stored = await fromTensor(table);
  table.dispose();
  return stored;
}

/** Writes the named adapters; see PeftModel.savePretrained. */
export async function saveAdapters(
  peft: PeftModel,
  target: FolderTarget,
  names: readonly string[],
  options: SaveOptions,
  onWarning: OnWarning,
): Promise<void> {
  const files = new Map<string, Uint8Array | string>();
  for (const name of names) {
    const config = peft.peftConfig[name]!;
    const folder = name === "default" ? "" : `${name}/`;
    files.set(`${folder}${CONFIG_FILE}`, stringifyPythonJson(configFile(peft, config)));
    files.set(
      `${folder}${TENSOR_FILE}`,
      writeSafetensors(await adapterTensors(peft, name, savesTables(peft, name, options, onWarning))),
    );
  }
  files.set("README.md", readmeCard(peft.peftConfig[names[0]!]!));
  await writeFolder(target, files);
}

function configFile(peft: PeftModel, config: TrainableTokensConfig): Record<string, unknown> {
  if (config.isFromFile) return config.toJSON();
  const { transformers } = architectureOf(peft.getBaseModel().config);
  const auto_mapping = config.auto_mapping ?? (config.task_type === null ? transformers : null);
  return { ...config.toJSON(), auto_mapping, inference_mode: true };
}

function savesTables(
  peft: PeftModel,
  name: string,
  { saveEmbeddingLayers = "auto" }: SaveOptions,
  onWarning: OnWarning,
): boolean {
  if (saveEmbeddingLayers !== "auto") return saveEmbeddingLayers;
  const base = peft.getBaseModel();
  const loaded = loadedVocabSize(base);
  const ids = new Set(peft.peftConfig[name]!.token_indices);
  const lost = Array.from({ length: base.config.vocab_size - loaded }, (_, i) => loaded + i).filter(
    (id) => !ids.has(id),
  );
  if (lost.length === 0) return false;
  onWarning({
    code: "EMBEDDINGS_SAVED",
    message: `savePretrained: ${lost.length} rows that resizing added are not in ${name}; the whole tables are saved with it`,
  });
  return true;
}
