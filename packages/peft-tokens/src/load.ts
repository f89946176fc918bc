import { CheckpointError, type FolderSource, type StoredTensor, toTensor } from "@neolog/checkpoint";
import { Scope, assign, formatShape, sameShape } from "@neolog/tensor";
import type { Adapters } from "./adapters.ts";
import { atomically } from "./atomically.ts";
import { applyRequiresGrad } from "./flags.ts";
import { PREFIX, fileTensors } from "./keys.ts";
import { type LoadReport, checkCopiesAgree, checkFinite, checkKeys } from "./loadChecks.ts";
import { asOneSided } from "./oneSided.ts";
import { readSide } from "./trainingState.ts";
import { type AdapterFile, readConfig, readTensors } from "./readFolder.ts";
import { type PeftConfig, type Placement, planAdapter, tokensOf } from "./registry.ts";
import { WholeTables, vocabSizeOf } from "./tables.ts";
import { checkRowsAlone, growVocabulary } from "./grow.ts";

export interface LoadOptions {
  /** The adapter trains; frozen by default. */
  readonly isTrainable?: boolean;
  /** Instead of the folder's adapter_config.json. */
  readonly config?: PeftConfig;
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

/** Adds an adapter and fills it from a folder. Everything is checked before the model changes. */
export async function loadAdapterFiles(
  adapters: Adapters,
  source: FolderSource,
  name: string,
  options: LoadOptions,
): Promise<LoadReport> {
  const { onWarning } = adapters;
  const { strict = true, subfolder, autocastAdapterDtype = true } = options;
  adapters.checkNew(name);
  const given = {
    config: options.config ?? (await readConfig(source, subfolder, onWarning)),
    file: await readTensors(source, subfolder, options.keyMapping),
  };
  const side = await readSide(source, subfolder);
  const { config, file } = side ? asOneSided(adapters, side, given.config, given.file) : given;
  const rows = vocabSizeOf(adapters);
  const vocabSize = options.resize && rows !== null ? rowsNeeded(rows, config, file) : undefined;
  if (vocabSize !== undefined && vocabSize > rows!) checkRowsAlone(adapters, "loadAdapter");
  const adding = {
    autocastAdapterDtype,
    vocabSize,
    ...(side ? { sides: side } : {}),
    ...(strict ? {} : { onUnmatched: onWarning }),
  };
  const { placements } = planAdapter(adapters, name, config, adding);
  using tables = new WholeTables(adapters, placements, file);
  tables.check(vocabSize ?? rows ?? 0);
  const { found, report } = match(placements, tables, file, options, adapters);
  checkKeys(file, report, strict, onWarning);

  atomically((undo) => {
    if (vocabSize !== undefined && vocabSize > rows!) {
      undo(() => growVocabulary(adapters.root, rows!));
      growVocabulary(adapters.root, vocabSize);
      const message = `loadAdapter: the embedding grew from ${rows} to ${vocabSize} rows; those that no adapter has are the mean of the others`;
      adapters.warn("TABLE_GROWN", message);
    }
    tables.replace(undo);
    undo(() => forget(adapters, name));
    adapters.add(name, config, { ...adding, onUnmatched: strict ? undefined : () => {} });
    fill(adapters, name, found);
  });
  adapters.known(name).requiresGrad = options.isTrainable ?? false;
  applyRequiresGrad(adapters);
  return report;
}

/** Rows of the vocabulary so that all ids and whole tables of the file have their place. */
function rowsNeeded(rows: number, config: PeftConfig, { tensors }: AdapterFile): number {
  const tables = [...tensors].filter(([key]) => key.endsWith(".base_layer.weight")).map(([, { shape }]) => shape[0]!);
  return Math.max(rows, 1 + Math.max(-1, ...tokensOf(config)), ...tables);
}

/** The stored tensor of each place, by the first key under which the place is listed. */
function match(
  placements: readonly Placement[],
  tables: WholeTables,
  file: AdapterFile,
  options: LoadOptions,
  adapters: Adapters,
): { found: Map<string, StoredTensor>; report: LoadReport } {
  const found = new Map<string, StoredTensor>();
  const missingKeys: string[] = [];
  const mismatchedKeys: string[] = [];
  const known = new Set(tables.places.keys());
  for (const { path, copies = [], tensors, ids, redundant = [] } of placements) {
    for (const suffix of redundant) known.add(`${path}.${suffix}`);
    for (const [suffix, shape] of tensors) {
      const keys = [path, ...copies].map((module) => `${module}.${suffix}`);
      for (const key of keys) known.add(key);
      const present = keys.filter((key) => file.tensors.has(key));
      const [key] = present;
      if (key === undefined) {
        missingKeys.push(PREFIX + keys[0]!);
        continue;
      }
      for (const k of present) checkFinite(file.name, k, file.tensors.get(k)!);
      const stored = file.tensors.get(key)!;
      if (!sameShape(stored.shape, shape)) {
        const what = ids ? " (ids × hidden)" : "";
        const message = `${file.name}: ${key} must be ${formatShape(shape)}${what}, found ${formatShape(stored.shape)}`;
        if (!options.ignoreMismatchedSizes) {
          const fields = { key, expected: shape, found: stored.shape, ...(ids ? { token_indices: ids } : {}) };
          throw new CheckpointError("SHAPE", message, fields);
        }
        adapters.warn("SKIPPED_TENSORS", message);
        mismatchedKeys.push(PREFIX + key);
        continue;
      }
      checkCopiesAgree(file.name, present, file.tensors);
      found.set(keys[0]!, stored);
    }
  }
  const strangers = [...file.tensors.keys()].filter((key) => !known.has(key)).map((key) => PREFIX + key);
  return { found, report: { missingKeys, mismatchedKeys, unexpectedKeys: [...file.foreign, ...strangers] } };
}

/** Copies values into the tensors of a new adapter. */
function fill(adapters: Adapters, name: string, found: ReadonlyMap<string, StoredTensor>): void {
  using _stored = new Scope();
  const own = fileTensors(adapters, name);
  for (const [key, stored] of found) assign(own.get(key)!, toTensor(stored, { name: key }));
}

function forget(adapters: Adapters, name: string): void {
  adapters.detach(name);
  adapters.entries.delete(name);
}
