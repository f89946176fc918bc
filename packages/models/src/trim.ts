import { stringifyPythonJson } from "@neolog/checkpoint";
import { Embedding, Linear } from "@neolog/nn";
import { type Tensor, cast, persist, Scope, takeRows, untracked } from "@neolog/tensor";
import { parseGenerationConfig } from "./config.ts";
import type { PreTrainedModel } from "./preTrainedModel.ts";
import { AdaptedEmbeddingError, setLoadedVocabSize } from "./resize.ts";
import { VocabularyError, positionsOf } from "./trimTokenizer.ts";

/**
 * Leaves only the rows of `keepIds`, in that order, in the embedding and an untied head, and renumbers the ids that config.json and
 * generation_config.json name. Logits of kept tokens stay as they are. Throws VocabularyError where ids are no different ones of the
 * vocabulary or a named one is not kept, AdaptedEmbeddingError where an adapter wraps the embedding; then nothing changed.
 */
export function keepTokenEmbeddings(model: PreTrainedModel, keepIds: readonly number[]): void {
  const { vocab_size } = model.config;
  const positions = positionsOf(keepIds, vocab_size);
  const config = renumbered(model.config, positions, vocab_size, "config.json");
  const generation = model.generationConfig && generationOf(model.generationConfig.text, positions, vocab_size);
  const table = model.moduleAt(model.embeddingPath);
  const head = model.headPath === null ? undefined : model.moduleAt(model.headPath);
  if (!(table instanceof Embedding)) throw new AdaptedEmbeddingError("keepTokenEmbeddings", model.embeddingPath);
  table.weight = rowsKept(table.weight, keepIds);
  table.padding_idx = table.padding_idx === null ? null : (positions.get(table.padding_idx) ?? null);
  if (head instanceof Linear) {
    head.weight = rowsKept(head.weight, keepIds);
    if (head.bias) head.bias = rowsKept(head.bias, keepIds);
  }
  model.config = { ...config, vocab_size: keepIds.length };
  if (generation) model.generationConfig = generation;
  setLoadedVocabSize(model, keepIds.length);
}

/** Rows of t in another order; t is disposed. */
export function rowsKept(t: Tensor, ids: readonly number[]): Tensor {
  return untracked(() => {
    using _temporary = new Scope();
    const rows = persist(cast(takeRows(t, Int32Array.from(ids)), t.dtype));
    rows.requiresGrad = t.requiresGrad;
    t.dispose();
    return rows;
  });
}

/** A config with new numbers at its keys `…_token_id`. Those that are beyond the vocabulary name no token and stay. */
function renumbered<C extends Readonly<Record<string, unknown>>>(
  config: C,
  positions: ReadonlyMap<number, number>,
  count: number,
  file: string,
): C {
  const moved = (key: string, id: unknown): unknown => {
    if (typeof id !== "number" || id < 0 || id >= count) return id;
    const position = positions.get(id);
    if (position !== undefined) return position;
    throw new VocabularyError(`trim: ${key} of ${file} (id ${id}) must be kept`, [id]);
  };
  const entries = Object.entries(config).map(([key, value]) => {
    if (!key.endsWith("_token_id")) return [key, value] as const;
    return [key, Array.isArray(value) ? value.map((id) => moved(key, id)) : moved(key, value)] as const;
  });
  return Object.fromEntries(entries) as C;
}

function generationOf(text: string, positions: ReadonlyMap<number, number>, count: number) {
  const file = "generation_config.json";
  const config = renumbered(JSON.parse(text) as Record<string, unknown>, positions, count, file);
  return parseGenerationConfig(`${stringifyPythonJson(config)}\n`, file);
}
