import type { Adapters } from "./adapters.ts";
import type { AdapterLayer } from "./adapterLayer.ts";
import { atomically } from "./atomically.ts";
import { AdapterError, ConfigError } from "./errors.ts";
import { TrainableTokensLayer } from "./layer.ts";
import { checkOverlap } from "./overlap.ts";
import { sharedTable, untie } from "./untie.ts";

export interface MergeOptions {
  /** The active adapters where absent. */
  readonly adapterNames?: readonly string[];
  /** Refuse to write NaN or infinity. */
  readonly safeMerge?: boolean;
  /** Remember merged weights, so that unmerging gives them back to the bit; true by default. */
  readonly exactUnmerge?: boolean;
  /** Where rows hold for one side of a tie only, give the head its own copy of the table first. */
  readonly untie?: boolean;
}
export interface MergeAndUnloadOptions extends MergeOptions {
  readonly onProgress?: (done: number, total: number) => void;
}

/**
 * Writes adapters into the base, in place, and remembers them for `unmerge`. All checks come first: when it throws, nothing has
 * changed. Without `safeMerge` the change is complete when the call returns.
 */
export async function mergeAdapters(adapters: Adapters, options: MergeOptions = {}): Promise<void> {
  const names = namesToMerge(adapters, options, adapters.state.active);
  if (options.safeMerge) await checkFinite(adapters, names);
  merge(adapters, names, options.exactUnmerge ?? true);
}

/** Merges the listed (default: active) adapters, beside those that are merged, and takes the wrappers away. */
export async function mergeAndRemove(adapters: Adapters, options: MergeAndUnloadOptions = {}): Promise<void> {
  const { active, merged } = adapters.state;
  const staying = merged.filter((name) => !(options.adapterNames ?? active).includes(name));
  const names = namesToMerge(adapters, options, []);
  if (staying.length > 0)
    adapters.warn("ALREADY_MERGED", `mergeAndUnload: ${staying.join(", ")} was merged and stays in the base`);
  if (options.safeMerge) await checkFinite(adapters, names);
  merge(adapters, names, options.exactUnmerge ?? true);
  adapters.removeAll(options.onProgress);
}

/** Puts the base back, last merged first. */
export function unmerge(adapters: Adapters): void {
  if (adapters.state.merged.length === 0) adapters.warn("NOT_MERGED", "unmergeAdapter: no adapter is merged");
  atomically((undo) => {
    for (const name of adapters.state.merged.toReversed()) {
      for (const layer of adapters.layersOf(name)) {
        step(
          layer,
          undo,
          () => layer.unmerge(name),
          () => layer.merge(name, true),
        );
      }
    }
  });
  adapters.state.merged = [];
}

/** The names to merge now, where `staying` adapters stay active beside them. Throws where merging is impossible; changes nothing. */
function namesToMerge(adapters: Adapters, options: MergeOptions, staying: readonly string[]): string[] {
  const { adapterNames, untie: mayUntie = false } = options;
  const { active, merged } = adapters.state;
  if (adapterNames !== undefined && !Array.isArray(adapterNames)) {
    throw new ConfigError("ARGUMENT", `adapterNames: must be a list of names, got ${JSON.stringify(adapterNames)}`, {
      adapterNames,
    });
  }
  const asked = adapterNames ?? active;
  for (const name of asked) adapters.known(name);
  const names = [...new Set(asked)].filter((name) => !merged.includes(name));
  checkOverlap(adapters, [...new Set([...merged, ...names, ...staying])], adapters.sharing);
  for (const name of names) checkTable(adapters, name, mayUntie);
  const repeated = asked.filter((name, i) => asked.indexOf(name) < i || merged.includes(name));
  if (repeated.length > 0)
    adapters.warn("ALREADY_MERGED", `mergeAdapter: ${[...new Set(repeated)].join(", ")} is merged already`);
  return names;
}

/** Throws AdapterError SHARED_TABLE where merging would change a module that the adapter leaves alone. */
function checkTable(adapters: Adapters, name: string, mayUntie: boolean): void {
  const shared = sharedTable(adapters, name);
  if (!shared || (mayUntie && shared.head !== null)) return;
  const { module, others, head } = shared;
  const remedy = head === null ? "untying the head does not help" : `untie: true gives ${head} its own`;
  throw new AdapterError(
    "SHARED_TABLE",
    `mergeAdapter: ${name} replaces rows of ${module} alone, but its table is also ${others.join(", ")}'s; ${remedy}`,
    { name, module },
  );
}

async function checkFinite(adapters: Adapters, names: readonly string[]): Promise<void> {
  for (const [i, name] of names.entries()) {
    for (const [path, layer] of adapters.layers()) {
      const found = layer.has(name) ? await layer.nonFinite(name, names.slice(0, i)) : null;
      if (!found) continue;
      const { count, row, column } = found;
      throw new AdapterError(
        "NON_FINITE",
        `mergeAdapter: what is written must be finite, got ${count} NaN or infinite values in ${name} on ${path}, the first at [${row}, ${column}]`,
        { name, module: path, ...found },
      );
    }
  }
}

/** Where writing fails, what was written is undone. */
function merge(adapters: Adapters, names: readonly string[], exact: boolean): void {
  const { state } = adapters;
  atomically((undo) => {
    if (names.some((name) => sharedTable(adapters, name))) undo(untie(adapters));
    for (const name of names) {
      const before = state.merged;
      undo(() => (state.merged = before));
      for (const layer of adapters.layersOf(name)) {
        step(
          layer,
          undo,
          () => layer.merge(name, exact),
          () => takeBack(layer, name, before),
        );
      }
      state.merged = [...before, name];
    }
  });
}

/** Rows are written one by one, so that half of them may be there; other layers write all or nothing. */
function step(layer: AdapterLayer, undo: (back: () => void) => void, run: () => void, back: () => void): void {
  if (layer instanceof TrainableTokensLayer) undo(back);
  run();
  if (!(layer instanceof TrainableTokensLayer)) undo(back);
}

/** Unmerges an adapter; earlier ones that share its rows have them again. */
function takeBack(layer: AdapterLayer, name: string, earlier: readonly string[]): void {
  layer.unmerge(name);
  if (layer instanceof TrainableTokensLayer) for (const other of earlier) if (layer.has(other)) layer.merge(other);
}
