import type { Tensor } from "@neolog/tensor";
import type { Adapters } from "./adapters.ts";
import { checkIds, checkRange } from "./config.ts";
import type { TokenRows } from "./effective.ts";
import { AdapterError, ConfigError } from "./errors.ts";
import { applyRequiresGrad } from "./flags.ts";
import { type InitPolicy, checkInit } from "./init.ts";
import type { TrainableTokensLayer } from "./layer.ts";
import { checkOverlap } from "./overlap.ts";
import { withTokens } from "./registry.ts";

/** What follows rows to other places: an optimizer. */
export interface RowFollower {
  replaceParameter(p: Tensor, replacement: Tensor, slots?: Int32Array): void;
}
export interface EditOptions {
  /** Its state follows the rows. */
  readonly optimizer?: RowFollower;
}
export interface ExtendOptions extends EditOptions {
  /** How the new rows start; as the base's by default. */
  readonly init?: InitPolicy;
  readonly seed?: number;
}

/** Lets an adapter train further tokens, on every module where it has rows. Throws ConfigError or AdapterError; then nothing changed. */
export function extendAdapter(
  adapters: Adapters,
  name: string,
  ids: readonly number[],
  options: ExtendOptions = {},
): void {
  checkIds(ids);
  const { init = "original" } = options;
  for (const [path, layer] of layersToEdit(adapters, "extendAdapter", name)) {
    const [rows] = layer.table.shape as [number];
    checkRange(ids, rows, path);
    checkInit(init, ids, rows);
    const again = ids.filter((id) => layer.indicesOf(name).includes(id));
    if (again.length === 0) continue;
    throw new ConfigError("INDEX_DUPLICATE", `extendAdapter: ${name} must not have ${again.join(", ")} already`, {
      name,
      ids: again,
    });
  }
  edit(adapters, name, (own) => [...own, ...ids], options, init);
}

/** Makes an adapter forget tokens. Throws ConfigError where it lacks one or would have none left, or AdapterError; then nothing changed. */
export function removeTokens(
  adapters: Adapters,
  name: string,
  ids: readonly number[],
  options: EditOptions = {},
): void {
  checkIds(ids);
  const layers = [...layersToEdit(adapters, "removeTokens", name).values()];
  const absent = ids.filter((id) => !layers.some((layer) => layer.indicesOf(name).includes(id)));
  if (absent.length > 0) {
    throw new ConfigError("ARGUMENT", `removeTokens: ${name} must have the ids, got ${absent.join(", ")}`, {
      name,
      ids: absent,
    });
  }
  if (layers.some((layer) => layer.indicesOf(name).every((id) => ids.includes(id)))) {
    throw new ConfigError(
      "INDICES_EMPTY",
      `removeTokens: ${name} must keep a token, got all of them; delete the adapter`,
      {
        name,
      },
    );
  }
  edit(adapters, name, (own) => own.filter((id) => !ids.includes(id)), options);
}

/**
 * Gives an adapter's rows to other tokens: old id → new id, others stay. Trained rows are kept, the base's read again. Throws
 * ConfigError or AdapterError; then nothing changed.
 */
export function remapTokens(
  adapters: Adapters,
  name: string,
  mapping: ReadonlyMap<number, number>,
  options: EditOptions = {},
): void {
  const moved = (own: readonly number[]): number[] => own.map((id) => mapping.get(id) ?? id);
  for (const [path, layer] of layersToEdit(adapters, "remapTokens", name)) {
    const ids = moved([...layer.indicesOf(name)]);
    checkIds(ids);
    checkRange(ids, layer.table.shape[0]!, path);
  }
  edit(adapters, name, moved, options);
}

/** The layers with an adapter's rows. Throws AdapterError UNKNOWN or MERGED. */
function layersToEdit(adapters: Adapters, where: string, name: string): Map<string, TrainableTokensLayer> {
  adapters.known(name);
  checkUnmerged(adapters, where, name);
  return new Map([...adapters.tokenLayers()].filter(([, layer]) => layer.has(name)));
}

/** Throws AdapterError MERGED. */
export function checkUnmerged({ state }: Adapters, where: string, name: string): void {
  if (!state.merged.includes(name)) return;
  throw new AdapterError("MERGED", `${where}: ${name} must not be merged; unmerge it first`, { name });
}

/** Rows keep their values and their places in the optimizer by what `change` makes of the ids. */
function edit(
  adapters: Adapters,
  name: string,
  change: (ids: readonly number[]) => readonly number[],
  { optimizer, seed = 0 }: ExtendOptions,
  policy?: InitPolicy,
): void {
  const entry = adapters.known(name);
  const layers = [...adapters.tokenLayers().values()].filter((layer) => layer.has(name));
  const { chosen } = adapters.state;
  if (chosen.includes(name)) {
    const changed = (layer: TrainableTokensLayer, other: string): readonly number[] =>
      other === name ? change([...layer.indicesOf(name)]) : [...layer.indicesOf(other)];
    checkOverlap(adapters, chosen, adapters.sharing, changed);
  }
  const config = withTokens(entry.config, change);
  const replaced = new Map<Tensor, Tensor>();
  const slotsOf = new Map<Tensor, Int32Array>();
  const next: [TrainableTokensLayer, TokenRows][] = [];
  for (const layer of layers) {
    const before = [...layer.indicesOf(name)];
    const ids = change(before);
    const slots = placesOf(before, ids);
    slotsOf.set(layer.trainable_tokens_delta[name]!, slots);
    const start = { init_weights: true, policy, seed, onWarning: adapters.onWarning };
    next.push([layer, layer.rearranged(name, ids, slots, start, replaced)]);
  }
  for (const [layer, rows] of next) layer.replaceRows(name, rows);
  for (const [old, delta] of replaced) {
    optimizer?.replaceParameter(old, delta, slotsOf.get(old));
    old.dispose();
  }
  entry.config = config;
  applyRequiresGrad(adapters);
}

/** Where each row comes from: its id's old place, or, where no id stays in the list, its own. */
function placesOf(before: readonly number[], ids: readonly number[]): Int32Array {
  const isRemap = ids.length === before.length;
  return Int32Array.from(ids, (id, i) => (isRemap ? i : before.indexOf(id)));
}
