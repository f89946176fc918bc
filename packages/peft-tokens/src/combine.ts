import { type Tensor, assign, cat, mul, tensor, untracked, Scope, add } from "@neolog/tensor";
import type { Adapters } from "./adapters.ts";
import { TrainableTokensConfig } from "./config.ts";
import type { OverlapPolicy, Sides } from "./effective.ts";
import { AdapterError, ConfigError } from "./errors.ts";
import type { TrainableTokensLayer } from "./layer.ts";
import { LoraConfig } from "./lora/config.ts";
import type { LoraPart } from "./lora/layer.ts";
import type { PeftConfig } from "./registry.ts";

/** How LoRA parts are added: side by side, which is exact, or by PEFT's rule of roots, which is not the weighted sum of products. */
export type CombinationType = "cat" | "linear";

/** An adapter's share in a combination. */
interface Share {
  readonly name: string;
  readonly weight: number;
}
/** What becomes of a row that several adapters have: base row, and trained row and weight of each. */
type RowRule = (original: ArrayLike<number>, rows: readonly { row: ArrayLike<number>; weight: number }[]) => number[];

/**
 * A new, inactive adapter whose rows are o + Σ wᵢ(δᵢ − o) over the adapters that have the token, in order of first appearance, and
 * whose LoRA part is the weighted sum. Throws ConfigError or AdapterError; then nothing changed.
 */
export async function addWeightedAdapter(
  adapters: Adapters,
  names: readonly string[],
  weights: readonly number[],
  newName: string,
  { combinationType = "cat" }: { readonly combinationType?: CombinationType } = {},
): Promise<void> {
  if (weights.length !== names.length || !weights.every(Number.isFinite)) {
    const given = JSON.stringify(weights);
    throw new ConfigError(
      "ARGUMENT",
      `addWeightedAdapter: must have one weight for each of ${names.length} adapters, got ${given}`,
      { weights },
    );
  }
  if (combinationType !== "cat" && combinationType !== "linear") {
    const given = JSON.stringify(combinationType);
    throw new ConfigError("ARGUMENT", `addWeightedAdapter: combinationType must be "cat" or "linear", got ${given}`, {
      combinationType,
    });
  }
  const shares = names.map((name, i) => ({ name, weight: weights[i]! }));
  await combine(adapters, "addWeightedAdapter", shares, newName, combinationType, (original, rows) => {
    const rest = 1 - rows.reduce((sum, { weight }) => sum + weight, 0);
    return Array.from(original, (o, j) => rows.reduce((sum, { row, weight }) => sum + weight * row[j]!, rest * o));
  });
}

/**
 * A new, inactive adapter with all tokens of several. A token that more than one has keeps the row of the first or last named, or their
 * mean; by default that is an error. LoRA parts add up. Throws ConfigError or AdapterError; then nothing changed.
 */
export async function combineAdapters(
  adapters: Adapters,
  names: readonly string[],
  newName: string,
  { overlap = "error" }: { readonly overlap?: OverlapPolicy | "mean" } = {},
): Promise<void> {
  if (!["error", "first", "last", "mean"].includes(overlap)) {
    const given = JSON.stringify(overlap);
    throw new ConfigError(
      "ARGUMENT",
      `combineAdapters: overlap must be "error", "first", "last" or "mean", got ${given}`,
      { overlap },
    );
  }
  const shares = names.map((name) => ({ name, weight: 1 }));
  if (overlap === "error") checkDisjoint(adapters, names);
  await combine(adapters, "combineAdapters", shares, newName, "cat", (_, rows) => {
    const chosen = overlap === "mean" ? rows : rows.slice(overlap === "last" ? -1 : 0).slice(0, 1);
    return Array.from(chosen[0]!.row, (_x, j) => chosen.reduce((sum, { row }) => sum + row[j]!, 0) / chosen.length);
  });
}

async function combine(
  adapters: Adapters,
  where: string,
  shares: readonly Share[],
  newName: string,
  type: CombinationType,
  rule: RowRule,
): Promise<void> {
  checkShares(adapters, where, shares);
  adapters.checkNew(newName);
  const rows = new Map<string, number[]>();
  for (const [path, layer] of adapters.tokenLayers()) {
    const own = shares.filter(({ name }) => layer.has(name));
    if (own.length > 0) rows.set(path, await combinedRows(layer, own, rule));
  }
  adapters.add(newName, combinedConfig(adapters, where, shares, type), sidesOf(adapters, shares));
  try {
    checkPlaces(adapters, where, newName, [...rows.keys()]);
    untracked(() => {
      using _temporary = new Scope();
      for (const [path, layer] of adapters.layers()) {
        const values = rows.get(path);
        const targets = [...layer.tensorsOf(newName).values()];
        if (values) assign(targets[0]!, tensor(values, targets[0]!.shape, "float32", layer.backend));
        else if (targets.length === 2) fillLora(targets as [Tensor, Tensor], partsOf(adapters, path, shares), type);
      }
    });
  } catch (error) {
    adapters.detach(newName);
    adapters.entries.delete(newName);
    throw error;
  }
}

function checkShares(adapters: Adapters, where: string, shares: readonly Share[]): void {
  const names = shares.map(({ name }) => name);
  if (names.length === 0 || new Set(names).size < names.length) {
    const given = names.join(", ") || "none";
    throw new ConfigError("ARGUMENT", `${where}: adapters must be named, each once, got ${given}`, { names });
  }
  for (const name of names) adapters.known(name);
  for (const [path, layer] of adapters.tokenLayers()) {
    const sides = new Set(names.filter((name) => layer.has(name)).map((name) => layer.sidesOf(name)));
    if (sides.size < 2) continue;
    throw new ConfigError(
      "ARGUMENT",
      `${where}: adapters must hold on the same sides of ${path}, got ${[...sides].join(", ")}`,
      { module: path },
    );
  }
}

/** Rows of one side stay there. */
function sidesOf(adapters: Adapters, [share]: readonly Share[]): { readonly sides?: Sides } {
  const { tokenLayers } = adapters;
  if (adapters.known(share!.name).config.peft_type === "LORA") return {};
  const layer = [...tokenLayers().values()].find((each) => each.has(share!.name));
  return layer ? { sides: layer.sidesOf(share!.name) } : {};
}

/** Independent lists that became equal would share their rows through the tie. */
function checkPlaces({ tokenLayers }: Adapters, where: string, newName: string, paths: readonly string[]): void {
  const lost = paths.find((path) => !tokenLayers().get(path)?.has(newName));
  if (lost === undefined) return;
  const message = `${where}: ${lost} and what it is tied to must keep different ids, or they share one set of rows`;
  throw new ConfigError("UNSUPPORTED", message, { module: lost });
}

function checkDisjoint(adapters: Adapters, names: readonly string[]): void {
  for (const [module, layer] of adapters.tokenLayers()) {
    const owner = new Map<number, string>();
    for (const name of names.filter((n) => layer.has(n))) {
      for (const id of layer.indicesOf(name)) {
        const other = owner.get(id);
        if (other !== undefined && other !== name) {
          const message = `combineAdapters: adapters must have different ids, got ${other} and ${name} sharing ${id} on ${module}; say overlap: "first", "last" or "mean"`;
          throw new AdapterError("OVERLAP", message, { adapters: [other, name], ids: [id], module });
        }
        owner.set(id, name);
      }
    }
  }
}

/** The tokens of several adapters in a layer, in order of first appearance. */
const union = (lists: readonly ArrayLike<number>[]): number[] => [...new Set(lists.flatMap((ids) => Array.from(ids)))];

async function combinedRows(layer: TrainableTokensLayer, shares: readonly Share[], rule: RowRule): Promise<number[]> {
  const width = layer.embedding_dim;
  const parts = await Promise.all(
    shares.map(async ({ name, weight }) => ({
      weight,
      slots: new Map(Array.from(layer.indicesOf(name), (id, slot) => [id, slot])),
      delta: await layer.trainable_tokens_delta[name]!.data(),
      original: await layer.originalOf(name).data(),
    })),
  );
  return union(shares.map(({ name }) => layer.indicesOf(name))).flatMap((id) => {
    const having = parts.filter(({ slots }) => slots.has(id));
    const rowOf = (values: ArrayLike<number>, slot: number): number[] =>
      Array.from({ length: width }, (_, j) => values[slot * width + j]!);
    const original = rowOf(having[0]!.original, having[0]!.slots.get(id)!);
    return rule(
      original,
      having.map(({ delta, slots, weight }) => ({ row: rowOf(delta, slots.get(id)!), weight })),
    );
  });
}

/** The LoRA parts of the adapters that have one at a path, their weights times their scales. */
function partsOf(adapters: Adapters, path: string, shares: readonly Share[]): { part: LoraPart; factor: number }[] {
  const { parts } = adapters.layers().get(path)!;
  return shares.flatMap(({ name, weight }) => {
    const part = parts.get(name) as LoraPart | undefined;
    return part ? [{ part, factor: weight * part.scale }] : [];
  });
}

/** A [r, in] and B [out, r] of the new adapter, whose scale is 1. */
function fillLora(
  [A, B]: [Tensor, Tensor],
  parts: readonly { part: LoraPart; factor: number }[],
  type: CombinationType,
): void {
  const sum = (terms: readonly Tensor[]): Tensor => terms.reduce((a, b) => add(a, b));
  if (type === "cat") {
    assign(
      A,
      cat(
        parts.map(({ part, factor }) => mul(part.A, factor)),
        0,
      ),
    );
    assign(
      B,
      cat(
        parts.map(({ part }) => part.B),
        1,
      ),
    );
    return;
  }
  assign(A, sum(parts.map(({ part, factor }) => mul(part.A, Math.sign(factor) * Math.sqrt(Math.abs(factor))))));
  assign(B, sum(parts.map(({ part, factor }) => mul(part.B, Math.sqrt(Math.abs(factor))))));
}

function combinedConfig(
  adapters: Adapters,
  where: string,
  shares: readonly Share[],
  type: CombinationType,
): PeftConfig {
  const configs = shares.map(({ name }) => adapters.known(name).config);
  const [first] = configs as [PeftConfig];
  if (first instanceof TrainableTokensConfig) {
    const targets = shares.map(({ name }) =>
      [...adapters.tokenLayers()].flatMap(([path, layer]) => (layer.has(name) ? [path] : [])),
    );
    const other = targets.findIndex((paths) => paths.join() !== targets[0]!.join());
    if (other > 0) {
      const given = `${targets[0]!.join(", ")} and ${targets[other]!.join(", ")}`;
      throw new ConfigError("ARGUMENT", `${where}: adapters must have the same target modules, got ${given}`, {
        targets,
      });
    }
    const token_indices = union(configs.map((config) => (config as TrainableTokensConfig).token_indices));
    return first.with({ token_indices, init_weights: false });
  }
  return combinedLora(adapters, where, shares, configs as LoraConfig[], type);
}

function combinedLora(
  adapters: Adapters,
  where: string,
  shares: readonly Share[],
  configs: readonly LoraConfig[],
  type: CombinationType,
): LoraConfig {
  const full = configs.find(({ bias, modules_to_save }) => bias !== "none" || (modules_to_save ?? []).length > 0);
  if (full) {
    throw new ConfigError(
      "UNSUPPORTED",
      `${where}: biases and modules_to_save cannot be combined; merge such an adapter instead`,
      {},
    );
  }
  const ranks = new Map<string, number>();
  const rows = new Map<string, number[]>();
  for (const [path, layer] of adapters.layers()) {
    const own = shares.filter(({ name }) => layer.has(name));
    if (own.length === 0) continue;
    if (adapters.tokenLayers().has(path)) {
      rows.set(path, union(own.map(({ name }) => (layer as TrainableTokensLayer).indicesOf(name))));
      continue;
    }
    const each = own.map(({ name }) => (layer.parts.get(name) as LoraPart).A.shape[0]!);
    if (type === "linear" && new Set(each).size > 1)
      throw new ConfigError(
        "RANK",
        `${where}: "linear" needs equal ranks, got ${each.join(", ")} at ${path}; use "cat"`,
        { module: path, ranks: each },
      );
    ranks.set(path, type === "linear" ? each[0]! : each.reduce((a, b) => a + b));
  }
  const r = Math.max(...ranks.values());
  const others = [...ranks].filter(([, rank]) => rank !== r);
  const pattern = Object.fromEntries(others.map(([path, rank]) => [path.replaceAll(".", "\\."), rank]));
  const [{ base_model_name_or_path, revision, task_type, lora_dropout }] = configs as [LoraConfig];
  return new LoraConfig({
    base_model_name_or_path,
    revision,
    task_type,
    lora_dropout,
    r,
    lora_alpha: r,
    rank_pattern: pattern,
    alpha_pattern: pattern,
    target_modules: [...ranks.keys()],
    fan_in_fan_out: configs[0]!.fan_in_fan_out,
    trainable_token_indices: rowLists(adapters, rows),
  });
}

/** A list where the input embedding alone has rows, else one for each module. */
function rowLists({ root }: Adapters, rows: ReadonlyMap<string, number[]>): LoraConfig["trainable_token_indices"] {
  const [only] = rows;
  if (!only) return null;
  return rows.size === 1 && only[0] === root.embeddingPath ? only[1] : Object.fromEntries(rows);
}
