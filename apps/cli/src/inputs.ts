import { openFolder, readJson } from "@neolog/checkpoint";
import { basename, dirname } from "node:path";
import { CliError } from "./errors.ts";
import type { ModelKind } from "./example.ts";

/** One forward pass: rows of equal length, as a tokenizer would give them. */
export interface Batch {
  readonly input_ids: number[][];
  readonly attention_mask?: number[][];
  readonly position_ids?: number[][];
  readonly token_type_ids?: number[][];
  readonly decoder_input_ids?: number[][];
  readonly decoder_attention_mask?: number[][];
  readonly labels?: number[][];
}

/** A batch and what its tensors are called in a file: `name` before `logits`, empty or ending in a slash. */
export interface NamedBatch {
  readonly prefix: string;
  readonly batch: Batch;
}

/** What each kind of model reads. */
const KEYS_OF: Readonly<Record<ModelKind, readonly (keyof Batch)[]>> = {
  causal: ["input_ids", "attention_mask", "position_ids", "labels"],
  masked: ["input_ids", "attention_mask", "position_ids", "token_type_ids", "labels"],
  seq2seq: ["input_ids", "attention_mask", "decoder_input_ids", "decoder_attention_mask", "labels"],
};
const KEYS = [...new Set(Object.values(KEYS_OF).flat())];

/** Throws CliError where a batch has a key that the kind of model does not read, or lacks what its decoder needs. */
export function checkBatches(path: string, batches: readonly NamedBatch[], kind: ModelKind): void {
  const keys = KEYS_OF[kind];
  for (const { prefix, batch } of batches) {
    const foreign = Object.keys(batch).find((key) => !(keys as readonly string[]).includes(key));
    if (foreign)
      throw new CliError(`${path}: ${prefix}keys must be of ${keys.join(", ")} for this model, found "${foreign}"`);
    if (kind === "seq2seq" && !batch.labels && !batch.decoder_input_ids)
      throw new CliError(
        `${path}: ${prefix}labels or decoder_input_ids must be there for an encoder-decoder, found neither`,
      );
  }
}

/**
 * Reads inputs.json: one batch, a list of batches (prefixes `0/`, `1/`, …, none where there is only one), or named batches, bare or
 * under "cases" (prefix `name/`). Throws CheckpointError or CliError that names file, batch and key.
 */
export async function readInputs(path: string): Promise<NamedBatch[]> {
  const folder = await openFolder(dirname(path));
  const json = await readJson(folder, basename(path));
  if (Array.isArray(json)) {
    if (json.length === 0) throw new CliError(`${path}: must hold at least one batch, found an empty list`);
    return json.map((item, i) => {
      const prefix = json.length > 1 ? `${i}/` : "";
      return { prefix, batch: toBatch(path, prefix, item) };
    });
  }
  if (!isObject(json)) throw new CliError(`${path}: must hold a batch or batches, found ${kindOf(json)}`);
  if ("input_ids" in json) return [{ prefix: "", batch: toBatch(path, "", json) }];
  const cases = isObject(json["cases"]) ? json["cases"] : json;
  if (Object.keys(cases).length === 0)
    throw new CliError(`${path}: must hold "input_ids" or named batches, found neither`);
  return Object.entries(cases).map(([name, item]) => ({ prefix: `${name}/`, batch: toBatch(path, `${name}/`, item) }));
}

function toBatch(path: string, prefix: string, json: unknown): Batch {
  if (!isObject(json)) throw new CliError(`${path}: ${prefix || "the batch"} must be an object, found ${kindOf(json)}`);
  if (!("input_ids" in json)) throw new CliError(`${path}: ${prefix}input_ids must be there, found none`);
  const unknown = Object.keys(json).find((key) => !(KEYS as readonly string[]).includes(key));
  if (unknown) throw new CliError(`${path}: ${prefix}keys must be of ${KEYS.join(", ")}, found "${unknown}"`);
  for (const key of KEYS) {
    if (key in json && !isMatrix(json[key])) {
      throw new CliError(`${path}: ${prefix}${key} must be rows of whole numbers, equally long, [[1, 2], [3, 4]]`);
    }
  }
  return json as unknown as Batch;
}

const isObject = (json: unknown): json is Record<string, unknown> =>
  typeof json === "object" && json !== null && !Array.isArray(json);

const isMatrix = (json: unknown): json is number[][] =>
  Array.isArray(json) &&
  json.length > 0 &&
  json.every(
    (row) =>
      Array.isArray(row) &&
      row.length > 0 &&
      row.length === (json[0] as unknown[]).length &&
      row.every(Number.isSafeInteger),
  );

const kindOf = (json: unknown): string =>
  json === null ? "null" : Array.isArray(json) ? "a list" : `a ${typeof json}`;
