import {
  CheckpointError,
  type Folder,
  type FolderSource,
  type FolderTarget,
  type StoredTensor,
  dtypeOf,
  fromTensor,
  openFolder,
  openSafetensors,
  readJsonObject,
  stringifyPythonJson,
  toTensor,
  writeFolder,
  writeSafetensors,
} from "@neolog/checkpoint";
import { architectureOf, loadedVocabSize } from "@neolog/models";
import { nearest } from "@neolog/nn";
import { type Tensor, assign, cast, formatShape, sameShape } from "@neolog/tensor";
import { readmeCard } from "./card.ts";
import { TrainableTokensConfig, checkRange } from "./config.ts";
import { PREFIX, ROWS, TABLE, listedModules, normalizeKey } from "./keys.ts";
import type { PeftModel } from "./model.ts";
import { resolveTargets } from "./targets.ts";
import type { OnWarning } from "./warnings.ts";

const CONFIG_FILE = "adapter_config.json";
const TENSOR_FILE = "adapter_model.safetensors";
/** The adapter types that files may hold. */
const PEFT_TYPES: readonly string[] = ["TRAINABLE_TOKENS"];

export interface LoadOptions {
  /** The rows train; frozen by default. */
  readonly isTrainable?: boolean;
  /** Instead of the folder's adapter_config.json. */
  readonly config?: TrainableTokensConfig;
  /** A folder inside the source. */
  readonly subfolder?: string;
  /** Patterns of key names (after PEFT's prefix) and their replacements; the first that matches counts. */
  readonly keyMapping?: Readonly<Record<string, string>>;
  readonly autocastAdapterDtype?: boolean;
  /** Missing and unexpected tensors are errors, the default; else warnings. */
  readonly strict?: boolean;
  /** Tensors of other shapes are left out, with a warning. */
  readonly ignoreMismatchedSizes?: boolean;
  /** Grow the table where ids lie beyond it. */
  readonly resize?: boolean;
}

export interface LoadReport {
  readonly missingKeys: readonly string[];
  readonly unexpectedKeys: readonly string[];
  readonly mismatchedKeys: readonly string[];
}

export interface SaveOptions {
  /** All adapters by default. */
  readonly selectedAdapters?: readonly string[];
  /** Whole tables too: always, never, or when rows that a resize added are in no adapter ("auto", the default). */
  readonly saveEmbeddingLayers?: boolean | "auto";
}

async function adapterFolder(
  source: FolderSource,
  subfolder?: string,
): Promise<{ folder: Folder; path: (file: string) => string }> {
  const folder = await openFolder(source);
  return { folder, path: (file) => (subfolder ? `${subfolder}/${file}` : file) };
}

/** The config of an adapter folder. Throws CheckpointError NOT_FOUND, CORRUPT or PEFT_TYPE, or ConfigError. */
export async function readConfig(
  source: FolderSource,
  subfolder: string | undefined,
  onWarning: OnWarning,
): Promise<TrainableTokensConfig> {
  const { folder, path } = await adapterFolder(source, subfolder);
  const file = path(CONFIG_FILE);
  const json = await readJsonObject(folder, file);
  const { peft_type } = json;
  if (typeof peft_type !== "string" || !PEFT_TYPES.includes(peft_type)) {
    const found = peft_type === undefined ? "none" : JSON.stringify(peft_type);
    throw new CheckpointError(
      "PEFT_TYPE",
      `${folder.name}/${file}: "peft_type" must be one of ${PEFT_TYPES.join(", ")}, found ${found}`,
      { peft_type },
    );
  }
  return TrainableTokensConfig.fromFile(json, onWarning);
}

async function readRows(
  source: FolderSource,
  { subfolder, keyMapping = {} }: LoadOptions,
): Promise<{ file: string; tensors: Map<string, StoredTensor> }> {
  const { folder, path } = await adapterFolder(source, subfolder);
  if (!(await folder.has(path(TENSOR_FILE))) && (await folder.has(path("adapter_model.bin")))) {
    throw new CheckpointError(
      "PICKLE",
      `${folder.name}: must hold ${TENSOR_FILE}, found adapter_model.bin; save it again as safetensors`,
    );
  }
  const stored = await openSafetensors(await folder.open(path(TENSOR_FILE)));
  const tensors = new Map<string, StoredTensor>();
  for (const key of stored.tensors.keys()) tensors.set(normalizeKey(key, keyMapping), await stored.read(key));
  await stored.close();
  return { file: `${folder.name}/${path(TENSOR_FILE)}`, tensors };
}

/** Adds an adapter under `name` and fills its rows from the folder. Everything is checked before the model changes. */
export async function loadAdapterFiles(
  peft: PeftModel,
  source: FolderSource,
  name: string,
  config: TrainableTokensConfig,
  options: LoadOptions,
  onWarning: OnWarning,
): Promise<LoadReport> {
  const { strict = true, resize = false } = options;
  const base = peft.getBaseModel();
  const { file, tensors } = await readRows(source, options);
  const targets = resolveTargets(base, config.target_modules);
  const tables = [...tensors].filter(([key]) => key.endsWith(TABLE));
  const needed = Math.max(1 + Math.max(...config.token_indices), ...tables.map(([, { shape }]) => shape[0] ?? 0));
  const rows = base.config.vocab_size;
  if (!resize) for (const target of targets) checkRange(config.token_indices, tableOf(peft, target).shape[0]!, target);
  if (tables.length > 0) checkTables(peft, file, tables, resize);

  const expected = new Map(
    targets.map((target) => [target, listedModules(peft, target).map((module) => module + ROWS)]),
  );
  const allExpected = [...expected.values()].flat();
  const unexpectedKeys = [...tensors.keys()].filter((key) => !allExpected.includes(key) && !key.endsWith(TABLE));
  const missingKeys: string[] = [];
  const mismatchedKeys: string[] = [];
  const found = new Map<string, StoredTensor>();
  for (const [target, keys] of expected) {
    const present = keys.filter((key) => tensors.has(key));
    if (present.length === 0) {
      missingKeys.push(keys[0]!);
      continue;
    }
    const shape = [config.token_indices.length, tableOf(peft, target).shape[1]!];
    const stored = tensors.get(present[0]!)!;
    for (const key of present) checkRows(file, key, tensors.get(key)!);
    if (!sameShape(stored.shape, shape)) {
      const message = `${file}: ${present[0]} must be ${formatShape(shape)} (ids × hidden), found ${formatShape(stored.shape)}`;
      if (!options.ignoreMismatchedSizes)
        throw new CheckpointError("SHAPE", message, { key: present[0], expected: shape, found: stored.shape });
      onWarning({ code: "SKIPPED_TENSORS", message });
      mismatchedKeys.push(present[0]!);
      continue;
    }
    checkCopiesAgree(file, present, tensors);
    found.set(target, stored);
  }
  report(strict, file, missingKeys, unexpectedKeys, [...tensors.keys()], onWarning);

  if (resize && needed > rows) {
    base.resizeTokenEmbeddings(needed);
    onWarning({
      code: "TABLE_GROWN",
      message: `loadAdapter: the embedding grew from ${rows} to ${needed} rows; those that no adapter has are the mean of the others`,
    });
  }
  for (const [key, stored] of tables) replaceTable(peft, key, stored, onWarning);
  const { autocastAdapterDtype } = options;
  peft.addAdapter(name, config, autocastAdapterDtype === undefined ? {} : { autocastAdapterDtype });
  for (const [target, stored] of found) {
    const t = toTensor(stored, { name: target });
    assign(peft.layers().get(target)!.trainable_tokens_delta[name]!, t);
    t.dispose();
  }
  return { missingKeys, unexpectedKeys, mismatchedKeys };
}

function tableOf(peft: PeftModel, target: string): Tensor {
  const layer = peft.layers().get(target);
  if (layer) return layer.table;
  const base = peft.getBaseModel();
  const module = base.moduleAt(target) as { weight?: Tensor } | undefined;
  return module?.weight ?? tableOf(peft, base.embeddingPath);
}

function checkRows(file: string, key: string, stored: StoredTensor): void {
  if (dtypeOf(stored, key) === "int32") {
    throw new CheckpointError("DTYPE", `${file}: ${key} must hold floats, found ${stored.dtype}`, {
      key,
      dtype: stored.dtype,
    });
  }
  const t = toTensor(stored, { name: key, dtype: "float32" });
  const at = t.dataSync().findIndex((value) => !Number.isFinite(value));
  t.dispose();
  if (at >= 0)
    throw new CheckpointError("CORRUPT", `${file}: ${key} must be finite, found NaN or infinity at element ${at}`, {
      key,
      at,
    });
}

/** Tied modules have equal copies of the rows. */
function checkCopiesAgree(file: string, keys: readonly string[], tensors: ReadonlyMap<string, StoredTensor>): void {
  const first = tensors.get(keys[0]!)!;
  for (const key of keys.slice(1)) {
    const other = tensors.get(key)!;
    const at = other.bytes.findIndex((byte, i) => byte !== first.bytes[i]);
    if (at < 0 && other.bytes.length === first.bytes.length) continue;
    const row = Math.floor(Math.max(0, at) / (first.bytes.length / first.shape[0]!));
    throw new CheckpointError(
      "TIED_DISAGREE",
      `${file}: ${keys[0]} and ${key} are tied and must be equal, found them different from row ${row} on`,
      {
        keys: [keys[0], key],
        row,
      },
    );
  }
}

function report(
  strict: boolean,
  file: string,
  missing: readonly string[],
  unexpected: readonly string[],
  found: readonly string[],
  onWarning: OnWarning,
): void {
  if (missing.length > 0) {
    const near = nearest(missing[0]!, found);
    const hint = near.length > 0 ? ` (nearest: ${near[0]}; map it with keyMapping)` : "";
    const message = `${file}: must hold ${missing.map((key) => PREFIX + key).join(", ")}, found ${found.join(", ") || "nothing"}${hint}`;
    if (strict) throw new CheckpointError("MISSING", message, { missing, found });
    onWarning({ code: "SKIPPED_TENSORS", message });
  }
  if (unexpected.length > 0) {
    const message = `${file}: holds ${unexpected.join(", ")}, which this adapter has no place for`;
    if (strict) throw new CheckpointError("UNEXPECTED", message, { unexpected });
    onWarning({ code: "SKIPPED_TENSORS", message });
  }
}

function checkTables(
  peft: PeftModel,
  file: string,
  tables: readonly (readonly [string, StoredTensor])[],
  resize: boolean,
): void {
  if (peft.mergedAdapters.length > 0) {
    throw new CheckpointError(
      "UNEXPECTED",
      `${file}: holds whole tables, and nothing may be merged while the base is replaced; unmerge first`,
    );
  }
  for (const [key, { shape }] of tables) {
    const module = key.slice(0, -TABLE.length);
    const own = tableOf(peft, module).shape;
    if (shape[1] === own[1] && (shape[0] === own[0] || resize)) continue;
    throw new CheckpointError(
      "SHAPE",
      `${file}: ${key} must be ${formatShape(own)}, found ${formatShape(shape)}; resize: true grows the table`,
      {
        key,
        expected: own,
        found: shape,
      },
    );
  }
}

function replaceTable(peft: PeftModel, key: string, stored: StoredTensor, onWarning: OnWarning): void {
  const t = toTensor(stored, { name: key });
  const table = tableOf(peft, key.slice(0, -TABLE.length));
  const converted = cast(t, table.dtype);
  assign(table, converted);
  if (converted !== t) converted.dispose();
  t.dispose();
  onWarning({ code: "BASE_REPLACED", message: `loadAdapter: ${key} replaced the base's table` });
}

/** The tensors of an adapter's file; tied modules have a copy each. */
export async function adapterTensors(
  peft: PeftModel,
  name: string,
  withTables: boolean,
): Promise<Map<string, StoredTensor>> {
  const tensors = new Map<string, StoredTensor>();
  for (const [path, layer] of peft.layers()) {
    if (!layer.has(name)) continue;
    const rows = await fromTensor(layer.trainable_tokens_delta[name]!);
    for (const module of listedModules(peft, path)) {
      tensors.set(PREFIX + module + ROWS, rows);
      if (withTables) tensors.set(PREFIX + module + TABLE, await fromTensor(layer.table));
    }
  }
  return tensors;
}

/** Writes adapters; see PeftModel.savePretrained. */
export async function saveAdapters(
  peft: PeftModel,
  target: FolderTarget,
  options: SaveOptions,
  onWarning: OnWarning,
): Promise<void> {
  const files = new Map<string, Uint8Array | string>();
  for (const name of options.selectedAdapters ?? Object.keys(peft.peftConfig)) {
    const config = peft.peftConfig[name]!;
    const folder = name === "default" ? "" : `${name}/`;
    files.set(`${folder}${CONFIG_FILE}`, stringifyPythonJson(configFile(peft, config)));
    files.set(
      `${folder}${TENSOR_FILE}`,
      writeSafetensors(await adapterTensors(peft, name, savesTables(peft, name, options, onWarning))),
    );
  }
  files.set("README.md", readmeCard(Object.values(peft.peftConfig)[0]!));
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
