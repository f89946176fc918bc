import {
  CheckpointError,
  type Folder,
  type FolderSource,
  type StoredTensor,
  dtypeOf,
  openFolder,
  openSafetensors,
  readJsonObject,
  toTensor,
} from "@neolog/checkpoint";
import { nearest } from "@neolog/nn";
import { type Tensor, assign, cast, formatShape, sameShape } from "@neolog/tensor";
import { TrainableTokensConfig, checkRange } from "./config.ts";
import { CONFIG_FILE, PREFIX, ROWS, TABLE, TENSOR_FILE, listedModules, normalizeKey } from "./keys.ts";
import type { PeftModel } from "./model.ts";
import { resolveTargets } from "./targets.ts";
import type { OnWarning } from "./warnings.ts";

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

/** The tensors by their names in the base model, and the keys that name nothing there. */
async function readRows(
  source: FolderSource,
  { subfolder, keyMapping = {} }: LoadOptions,
): Promise<{ file: string; tensors: Map<string, StoredTensor>; foreign: string[] }> {
  const { folder, path } = await adapterFolder(source, subfolder);
  if (!(await folder.has(path(TENSOR_FILE))) && (await folder.has(path("adapter_model.bin")))) {
    throw new CheckpointError(
      "PICKLE",
      `${folder.name}: must hold ${TENSOR_FILE}, found adapter_model.bin; save it again as safetensors`,
    );
  }
  const stored = await openSafetensors(await folder.open(path(TENSOR_FILE)));
  const tensors = new Map<string, StoredTensor>();
  const file = `${folder.name}/${path(TENSOR_FILE)}`;
  const foreign: string[] = [];
  try {
    for (const key of stored.tensors.keys()) {
      const name = normalizeKey(key, keyMapping);
      if (name === null) foreign.push(key);
      else if (tensors.has(name)) throw ambiguous(file, name);
      else tensors.set(name, await stored.read(key));
    }
  } finally {
    await stored.close();
  }
  return { file, tensors, foreign };
}

const ambiguous = (file: string, name: string): CheckpointError =>
  new CheckpointError("UNEXPECTED", `${file}: must hold ${name} once, found it under several keys`, {
    unexpected: [name],
  });

/** The adapter to load: its name, its config, and how it is added to the modules that its config selects. */
export interface NewAdapter {
  readonly name: string;
  readonly config: TrainableTokensConfig;
  readonly add: (targets: readonly string[]) => void;
}

/** Adds an adapter and fills its rows from the folder. Everything is checked before the model changes. */
export async function loadAdapterFiles(
  peft: PeftModel,
  source: FolderSource,
  { name, config, add }: NewAdapter,
  options: LoadOptions,
  onWarning: OnWarning,
): Promise<LoadReport> {
  const { strict = true, resize = false } = options;
  const base = peft.getBaseModel();
  const { file, tensors, foreign } = await readRows(source, options);
  const targets = resolveTargets(base, config.target_modules, strict ? undefined : onWarning);
  const rows = base.config.vocab_size;
  const needed = resize ? rowsNeeded(rows, config, tensors) : rows;
  for (const target of targets) {
    const grows = target === base.embeddingPath || target === base.headPath;
    checkRange(config.token_indices, grows ? needed : tableOf(peft, target).shape[0]!, target);
  }

  const modules = new Map(targets.map((target) => [target, listedModules(peft, target)]));
  const expected = new Map([...modules].map(([target, listed]) => [target, listed.map((module) => module + ROWS)]));
  const listedTables = [...modules.values()].flat().map((module) => module + TABLE);
  const tables = [...tensors].filter(([key]) => listedTables.includes(key));
  checkTables(peft, file, tables, needed);
  const places = [...[...expected.values()].flat(), ...listedTables];
  const strangers = [...tensors.keys()].filter((key) => !places.includes(key));
  const unexpectedKeys = [...foreign, ...strangers.map((key) => PREFIX + key)];
  const missingKeys: string[] = [];
  const mismatchedKeys: string[] = [];
  const found = new Map<string, StoredTensor>();
  for (const [target, keys] of expected) {
    const present = keys.filter((key) => tensors.has(key));
    if (present.length === 0) {
      missingKeys.push(PREFIX + keys[0]!);
      continue;
    }
    const shape = [config.token_indices.length, tableOf(peft, target).shape[1]!];
    const stored = tensors.get(present[0]!)!;
    for (const key of present) checkRows(file, key, tensors.get(key)!);
    if (!sameShape(stored.shape, shape)) {
      const message = `${file}: ${present[0]} must be ${formatShape(shape)} (ids × hidden), found ${formatShape(stored.shape)}`;
      if (!options.ignoreMismatchedSizes) {
        const { token_indices } = config;
        throw new CheckpointError("SHAPE", message, {
          key: present[0],
          expected: shape,
          found: stored.shape,
          token_indices,
        });
      }
      onWarning({ code: "SKIPPED_TENSORS", message });
      mismatchedKeys.push(PREFIX + present[0]!);
      continue;
    }
    checkCopiesAgree(file, present, tensors);
    found.set(target, stored);
  }
  report(
    strict,
    file,
    missingKeys,
    unexpectedKeys,
    [...foreign, ...[...tensors.keys()].map((key) => PREFIX + key)],
    onWarning,
  );

  if (needed > rows) {
    base.resizeTokenEmbeddings(needed);
    onWarning({
      code: "TABLE_GROWN",
      message: `loadAdapter: the embedding grew from ${rows} to ${needed} rows; those that no adapter has are the mean of the others`,
    });
  }
  for (const [key, stored] of tables) replaceTable(peft, key, stored, onWarning);
  if (tables.length > 0) for (const layer of peft.layers().values()) layer.rereadOriginals();
  add(targets);
  for (const [target, stored] of found) {
    const t = toTensor(stored, { name: target });
    assign(peft.layers().get(target)!.trainable_tokens_delta[name]!, t);
    t.dispose();
  }
  return { missingKeys, unexpectedKeys, mismatchedKeys };
}

/** Rows of the vocabulary so that all ids and whole tables of the file have their place. */
function rowsNeeded(rows: number, config: TrainableTokensConfig, tensors: ReadonlyMap<string, StoredTensor>): number {
  const tables = [...tensors].filter(([key]) => key.endsWith(TABLE)).map(([, { shape }]) => shape[0] ?? 0);
  return Math.max(rows, 1 + Math.max(...config.token_indices), ...tables);
}

function tableOf(peft: PeftModel, target: string): Tensor {
  const layer = peft.layers().get(target);
  if (layer) return layer.table;
  const base = peft.getBaseModel();
  const module = base.moduleAt(target) as { weight?: Tensor } | undefined;
  return module?.weight ?? tableOf(peft, base.embeddingPath);
}

function checkFloats(file: string, key: string, stored: StoredTensor): void {
  if (dtypeOf(stored, key) === "int32") {
    throw new CheckpointError("DTYPE", `${file}: ${key} must hold floats, found ${stored.dtype}`, {
      key,
      dtype: stored.dtype,
    });
  }
}

function checkRows(file: string, key: string, stored: StoredTensor): void {
  checkFloats(file, key, stored);
  const t = toTensor(stored, { name: key, dtype: "float32" });
  const at = t.dataSync().findIndex((value) => !Number.isFinite(value));
  t.dispose();
  if (at >= 0)
    throw new CheckpointError("CORRUPT", `${file}: ${key} must be finite, found NaN or infinity at element ${at}`, {
      key,
      at,
    });
}

/** Tied modules have equal copies. */
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
    const message = `${file}: must hold ${missing.join(", ")}, found ${found.join(", ") || "nothing"}${hint}`;
    if (strict) throw new CheckpointError("MISSING", message, { missing, found });
    onWarning({ code: "SKIPPED_TENSORS", message });
  }
  if (unexpected.length > 0) {
    const message = `${file}: holds ${unexpected.join(", ")}, which this adapter has no place for`;
    if (strict) throw new CheckpointError("UNEXPECTED", message, { unexpected });
    onWarning({ code: "SKIPPED_TENSORS", message });
  }
}

/** Whole tables must fit the vocabulary of `rows` tokens, and be equal where they are tied. */
function checkTables(
  peft: PeftModel,
  file: string,
  tables: readonly (readonly [string, StoredTensor])[],
  rows: number,
): void {
  if (tables.length > 0 && peft.mergedAdapters.length > 0) {
    throw new CheckpointError(
      "UNEXPECTED",
      `${file}: holds whole tables, and nothing may be merged while the base is replaced; unmerge first`,
      { unexpected: tables.map(([key]) => key) },
    );
  }
  const { embeddingPath, headPath, tiedPaths } = peft.getBaseModel();
  for (const [key, stored] of tables) {
    const module = key.slice(0, -TABLE.length);
    const own = tableOf(peft, module).shape;
    const expected = [module === embeddingPath || module === headPath ? rows : own[0]!, own[1]!];
    checkFloats(file, key, stored);
    if (sameShape(stored.shape, expected)) continue;
    throw new CheckpointError(
      "SHAPE",
      `${file}: ${key} must be ${formatShape(expected)}, found ${formatShape(stored.shape)}; resize: true grows the table`,
      { key, expected, found: stored.shape },
    );
  }
  const tied = [embeddingPath, ...tiedPaths].map((path) => path + TABLE);
  const copies = tables.map(([key]) => key).filter((key) => tied.includes(key));
  if (copies.length > 1) checkCopiesAgree(file, copies, new Map(tables));
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
