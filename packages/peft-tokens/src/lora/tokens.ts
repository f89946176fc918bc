import { nearest } from "@neolog/nn";
import type { Adapters } from "../adapters.ts";
import type { Sides } from "../effective.ts";
import { ConfigError, TargetError } from "../errors.ts";
import { endsWithName, resolveTargets } from "../targets.ts";
import { type Tie, tiesOf } from "../ties.ts";
import { moduleNames } from "../wrap.ts";
import type { LoraConfig } from "./config.ts";

/** Rows that an adapter trains beside LoRA. */
export interface TokenPlace {
  readonly path: string;
  readonly ids: readonly number[];
  readonly sides: Sides;
}

/**
 * Where `trainable_token_indices` put rows. Modules tied to a named embedding share its rows, unless they are named themselves with
 * another list. Throws TargetError NOT_FOUND, ConfigError ARGUMENT or TIE_CONFLICT.
 */
export function tokenPlaces(adapters: Adapters, config: LoraConfig): TokenPlace[] {
  const { root } = adapters;
  const named = namedPlaces(adapters, config);
  const ties = tiesOf(root).filter(({ tied }) => tied.length > 0);
  if (config.ensure_weight_tying && named.size > 0 && ties.length === 0)
    adapters.warn("NOT_TIED", "ensure_weight_tying: the model ties no weights, so nothing is tied");
  const sides = new Map<string, Sides>([...named.keys()].map((path) => [path, "both"]));
  for (const tie of ties) {
    const users = tie.tied.filter((path) => named.has(path));
    if (!named.has(tie.embedding) || users.length === 0) continue;
    if (users.every((path) => sameIds(named.get(path)!, named.get(tie.embedding)!))) {
      for (const path of users) sides.delete(path);
    } else if (config.ensure_weight_tying) throw tieConflict(tie, users, named);
    else sides.set(tie.embedding, "input");
  }
  return moduleNames(root)
    .filter((path) => sides.has(path))
    .map((path) => ({ path, ids: named.get(path)!, sides: sides.get(path)! }));
}

/** The ids of every module that the config names. */
function namedPlaces({ root }: Adapters, { trainable_token_indices }: LoraConfig): Map<string, readonly number[]> {
  if (trainable_token_indices === null) return new Map();
  if (!isRecord(trainable_token_indices))
    return new Map(resolveTargets(root, null).map((path) => [path, trainable_token_indices]));
  const names = moduleNames(root);
  const places = new Map<string, readonly number[]>();
  for (const [entry, ids] of Object.entries(trainable_token_indices)) {
    const paths = names.filter((name) => endsWithName(name, entry));
    if (paths.length === 0) throw notFound(entry, names);
    for (const path of paths) {
      const other = places.get(path);
      if (other && !sameIds(other, ids)) {
        const message = `trainable_token_indices: ${path} must be named once, or with equal lists, got it under several names`;
        throw new ConfigError("ARGUMENT", message, { module: path });
      }
      places.set(path, ids);
    }
  }
  return places;
}

const isRecord = (indices: object): indices is Readonly<Record<string, readonly number[]>> =>
  !Array.isArray(indices) && !(indices instanceof Int32Array);

const sameIds = (a: readonly number[], b: readonly number[]): boolean =>
  a.length === b.length && [...a].every((id, i) => id === b[i]);

function notFound(entry: string, names: readonly string[]): TargetError {
  const near = nearest(entry, names);
  const hint = near.length > 0 ? `; did you mean "${near[0]}"?` : "";
  const message = `trainable_token_indices: a module must match "${entry}", got none${hint}`;
  return new TargetError("NOT_FOUND", message, { target_modules: [entry], near });
}

function tieConflict(
  { embedding }: Tie,
  users: readonly string[],
  named: ReadonlyMap<string, readonly number[]>,
): ConfigError {
  const layers = [embedding, ...users];
  const got = layers.map((path) => `${path}: ${[...named.get(path)!].join(", ")}`).join("; ");
  const message = `ensure_weight_tying: tied modules must have equal lists of ids, got ${got}; make them equal, or leave the flag out`;
  return new ConfigError("TIE_CONFLICT", message, {
    layers: Object.fromEntries(layers.map((path) => [path, named.get(path)])),
  });
}

/** Modules that read the same table as one of the paths, themselves included. */
export function withTies({ root }: Adapters, paths: readonly string[]): Set<string> {
  const all = new Set(paths);
  for (const { embedding, tied } of tiesOf(root)) {
    const users = [embedding, ...tied];
    if (users.some((path) => paths.includes(path))) for (const path of users) all.add(path);
  }
  return all;
}
