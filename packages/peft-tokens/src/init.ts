import { normalAt } from "@neolog/tensor";
import { cholesky, covarianceOf, meanOf, type Vectors, variancesOf } from "./covariance.ts";
import { ConfigError } from "./errors.ts";
import type { OnWarning } from "./warnings.ts";

/** How new rows start. A name stands for the policy with its defaults. */
export type InitPolicy =
  | "original"
  | "random"
  | "mean"
  /** The rows of the base: nothing changes until they are trained. */
  | { readonly kind: "original" }
  /** N(0, std²); std is 1 by default. */
  | { readonly kind: "random"; readonly std?: number }
  /** The mean of the rows of all other ids. */
  | { readonly kind: "mean" }
  /** One list for each row: the mean of the rows of the ids that a description of the token is made of; one named twice counts twice. */
  | { readonly kind: "description"; readonly tokens: readonly (readonly number[])[] }
  /** The rows of other ids, one for each. */
  | { readonly kind: "copy"; readonly from: readonly number[] }
  /**
   * Drawn from the normal distribution of the rows of all other ids, its covariance scaled (1e-9 by default), as transformers fills
   * rows that a resize adds. Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language Models"
   */
  | { readonly kind: "normal"; readonly covariance: "full" | "diagonal"; readonly scale?: number };

type InitRule = Exclude<InitPolicy, string>;
export const ruleOf = (policy: InitPolicy): InitRule => (typeof policy === "string" ? { kind: policy } : policy);

/** A table whose rows are read a few at a time. */
export interface RowSource {
  readonly count: number;
  readonly width: number;
  /** ids [n] → their rows, [n · width] */
  readonly read: (ids: Int32Array) => ArrayLike<number>;
}

const PANEL = 1024;
const NAMES = ["original", "random", "mean"];
const KINDS = [...NAMES, "description", "copy", "normal"];

/** Throws ConfigError ARGUMENT or INDEX_RANGE where the policy does not fit `ids` of a table with `count` rows. */
export function checkInit(policy: InitPolicy, ids: readonly number[], count: number): void {
  const given = policy as string | { readonly kind?: unknown } | null;
  const known = typeof given === "string" ? NAMES.includes(given) : KINDS.includes(given?.kind as string);
  if (!known) {
    const names = NAMES.map((name) => `"${name}"`).join(", ");
    throw wrong(`must be ${names} or an object whose kind is one of ${KINDS.join(", ")}`, policy);
  }
  const rule = ruleOf(policy);
  if ((rule.kind === "mean" || rule.kind === "normal") && new Set(ids).size >= count) {
    throw wrong(`${rule.kind} needs rows that do not train`, `all ${count} ids`);
  }
  if (rule.kind === "random" && !isScale(rule.std ?? 1)) throw wrong("std must be above 0", rule.std);
  if (rule.kind === "normal") {
    if (!["full", "diagonal"].includes(rule.covariance))
      throw wrong('covariance must be "full" or "diagonal"', rule.covariance);
    if (!isScale(rule.scale ?? 1e-9)) throw wrong("scale must be above 0", rule.scale);
  }
  if (rule.kind === "copy") {
    checkLength("copy.from", rule.from, ids);
    checkIds("copy.from", rule.from, count);
  }
  if (rule.kind === "description") {
    checkLength("description.tokens", rule.tokens, ids);
    rule.tokens.forEach((tokens, slot) => checkDescription(tokens, ids[slot]!, count));
  }
}

/** The rows [k · width] that `ids` start with; the same for the same seed. The policy must have been checked. */
export function initialRows(
  table: RowSource,
  ids: readonly number[],
  policy: InitPolicy,
  seed: number,
  onWarning: OnWarning,
): ArrayLike<number> {
  const rule = ruleOf(policy);
  const { width } = table;
  const rowsOf = (of: readonly number[]): ArrayLike<number> => table.read(Int32Array.from(of));
  switch (rule.kind) {
    case "original":
      return rowsOf(ids);
    case "copy":
      return rowsOf(rule.from);
    case "random":
      return draw(ids.length * width, (i) => (rule.std ?? 1) * normalAt(seed, i));
    case "mean": {
      const mean = meanOf(rowsWithout(table, ids), width);
      return draw(ids.length * width, (i) => mean[i % width]!);
    }
    case "description": {
      const means = rule.tokens.map((tokens) => meanOf(() => vectors(rowsOf(tokens), width), width));
      return draw(ids.length * width, (i) => means[Math.floor(i / width)]![i % width]!);
    }
    case "normal":
      return normalRows(table, ids, rule, seed, onWarning);
  }
}

/** mean + √scale·L·z with L·Lᵀ the covariance of the other rows and z standard normal; the mean alone where there is no such L. */
function normalRows(
  table: RowSource,
  ids: readonly number[],
  { covariance, scale = 1e-9 }: Extract<InitPolicy, { kind: "normal" }>,
  seed: number,
  onWarning: OnWarning,
): Float64Array {
  const { width } = table;
  const others = rowsWithout(table, ids);
  const mean = meanOf(others, width);
  const spread = covariance === "full" ? factorOf(others, mean) : deviationsOf(others, mean);
  if (!spread) {
    const message = `init: the ${covariance} covariance of the other rows must be positive definite, got one that is not; all rows start as the mean`;
    onWarning({ code: "COVARIANCE", message });
  }
  return draw(ids.length * width, (i) => {
    const row = i - (i % width);
    const offset = spread ? spread(i % width, (j) => normalAt(seed, row + j)) : 0;
    return mean[i % width]! + Math.sqrt(scale) * offset;
  });
}

/** Component i of L·z. */
type Spread = (i: number, z: (j: number) => number) => number;

function factorOf(others: Vectors, mean: Float64Array): Spread | null {
  const width = mean.length;
  const L = cholesky(covarianceOf(others, mean), width);
  return (
    L &&
    ((i, z) => {
      let sum = 0;
      for (let j = 0; j <= i; j++) sum += L[i * width + j]! * z(j);
      return sum;
    })
  );
}

function deviationsOf(others: Vectors, mean: Float64Array): Spread | null {
  const variances = variancesOf(others, mean);
  return variances.every((variance) => variance > 0) ? (i, z) => Math.sqrt(variances[i]!) * z(i) : null;
}

/** The rows of all ids but some, in ascending order, read panel by panel. */
function rowsWithout({ count, width, read }: RowSource, ids: readonly number[]): Vectors {
  return function* () {
    for (const panel of panelsWithout(count, ids)) yield* vectors(read(panel), width);
  };
}

/** All ids below `count` but some, in ascending order, up to 1024 at a time. */
export function* panelsWithout(count: number, ids: readonly number[]): Generator<Int32Array> {
  const left = new Set(ids);
  for (let start = 0; start < count; start += PANEL) {
    const panel = Int32Array.from({ length: Math.min(PANEL, count - start) }, (_, i) => start + i);
    const kept = panel.filter((id) => !left.has(id));
    if (kept.length > 0) yield kept;
  }
}

function* vectors(rows: ArrayLike<number>, width: number): Generator<Float64Array> {
  const row = new Float64Array(width);
  for (let at = 0; at < rows.length; at += width) {
    for (let j = 0; j < width; j++) row[j] = rows[at + j]!;
    yield row;
  }
}

const draw = (length: number, value: (i: number) => number): Float64Array =>
  Float64Array.from({ length }, (_, i) => value(i));

const isScale = (x: number): boolean => x > 0 && x < Infinity;

const wrong = (mustHold: string, given: unknown): ConfigError =>
  new ConfigError("ARGUMENT", `init: ${mustHold}, got ${typeof given === "string" ? given : JSON.stringify(given)}`, {
    given,
  });

function checkLength(what: string, list: readonly unknown[], ids: readonly number[]): void {
  if (!Array.isArray(list) || list.length !== ids.length)
    throw wrong(`${what} must have one entry for each of ${ids.length} ids`, list);
}

function checkIds(what: string, list: readonly number[], count: number): void {
  const outside = list.find((id) => !Number.isInteger(id) || id < 0 || id >= count);
  if (outside === undefined) return;
  throw new ConfigError("INDEX_RANGE", `init: ids of ${what} must be in [0, ${count}), got ${outside}`, {
    id: outside,
    rows: count,
  });
}

function checkDescription(tokens: readonly number[], id: number, count: number): void {
  if (!Array.isArray(tokens) || tokens.length === 0) throw wrong(`the description of ${id} must hold tokens`, tokens);
  checkIds("description.tokens", tokens, count);
  if (tokens.includes(id)) throw wrong(`the description of ${id} must not hold ${id} itself`, tokens);
}
