import { Random, Scope, type Tensor, slice, untracked } from "@neolog/tensor";
import type { CausalLM } from "./causalLm.ts";
import { type IdMatrix, toHost, toHostLike } from "./inputs.ts";
import { KvCache } from "./kvCache.ts";
import {
  type LogitsProcessor,
  argmaxOf,
  minLength,
  minP,
  noRepeatNgram,
  repetitionPenalty,
  softmaxOf,
  temperature,
  topK,
  topP,
} from "./logits.ts";

/** Options of `generate`, named as in transformers. */
export interface GenerateOptions {
  /** [B, T], padded on the left where rows differ in length. */
  readonly input_ids: IdMatrix;
  readonly attention_mask?: IdMatrix | undefined;
  /** 20 by default. */
  readonly max_new_tokens?: number | undefined;
  /** Draw from the distribution; greedy when false, the default. */
  readonly do_sample?: boolean | undefined;
  readonly temperature?: number | undefined;
  readonly top_k?: number | undefined;
  readonly top_p?: number | undefined;
  readonly min_p?: number | undefined;
  readonly repetition_penalty?: number | undefined;
  readonly no_repeat_ngram_size?: number | undefined;
  readonly min_length?: number | undefined;
  /** Seed of the draws; 0 by default. */
  readonly seed?: number | undefined;
  /** Where a row ends; the config's by default, null for never. */
  readonly eos_token_id?: number | readonly number[] | null | undefined;
  /** What finished rows are filled with; the config's, else the first end token. */
  readonly pad_token_id?: number | null | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Called after each step with the new id of every row. */
  readonly onToken?: ((ids: readonly number[]) => void) | undefined;
}

/** Prompt and continuation of each row, up to max_new_tokens or until every row has ended. Decodes with a key/value cache. */
export async function generate(model: CausalLM, options: GenerateOptions): Promise<number[][]> {
  const prompt = toHost("input_ids", options.input_ids);
  const { rows, columns } = prompt;
  const mask = options.attention_mask
    ? toHostLike("attention_mask", options.attention_mask, rows, columns).values
    : new Int32Array(rows * columns).fill(1);
  const ids = rowsOf(prompt.values, rows, columns);
  const attention = rowsOf(mask, rows, columns);
  const ends = [
    options.eos_token_id === undefined ? (model.config.eos_token_id ?? []) : (options.eos_token_id ?? []),
  ].flat();
  const pad = options.pad_token_id ?? model.config.pad_token_id ?? ends[0] ?? 0;
  const processors = processorsOf(options, ends);
  const random = new Random(options.seed ?? 0);
  const finished = Array.from({ length: rows }, () => false);
  const cache = new KvCache();
  try {
    for (let step = 0; step < (options.max_new_tokens ?? 20) && finished.includes(false); step++) {
      options.signal?.throwIfAborted();
      const logits = await nextLogits(model, ids, attention, cache);
      const next = ids.map((row, b) =>
        finished[b] ? pad : choose(logits[b]!, row, processors, options.do_sample ? random : null),
      );
      next.forEach((id, b) => {
        ids[b]!.push(id);
        attention[b]!.push(1);
        if (ends.includes(id)) finished[b] = true;
      });
      options.onToken?.(next);
    }
  } finally {
    cache.dispose();
  }
  return ids;
}

/** Scores of the next token of each row; runs the positions that the cache does not hold. */
async function nextLogits(
  model: CausalLM,
  ids: number[][],
  attention: number[][],
  cache: KvCache,
): Promise<Float32Array[]> {
  const past = cache.length;
  const positions = attention.map((row) => {
    let seen = 0;
    return row.map((m) => (m ? seen++ : 1));
  });
  let last: Tensor;
  {
    using scope = new Scope();
    const { logits } = untracked(() =>
      model.forward({
        input_ids: ids.map((row) => row.slice(past)),
        attention_mask: attention,
        position_ids: positions.map((row) => row.slice(past)),
        past_key_values: cache,
      }),
    );
    last = scope.keep(slice(logits, 1, -1));
  }
  const scores = (await last.data()) as Float32Array;
  last.dispose();
  const vocab = scores.length / ids.length;
  return ids.map((_, b) => scores.slice(b * vocab, (b + 1) * vocab));
}

function choose(
  scores: Float32Array,
  ids: readonly number[],
  processors: readonly LogitsProcessor[],
  random: Random | null,
): number {
  for (const process of processors) process(scores, ids);
  if (!random) return argmaxOf(scores);
  let rest = random.next();
  const probabilities = softmaxOf(scores);
  for (let i = 0; i < probabilities.length; i++) {
    rest -= probabilities[i]!;
    if (rest < 0) return i;
  }
  return argmaxOf(scores);
}

/** In transformers' order: penalties first, then what shapes the distribution of a draw. */
function processorsOf(options: GenerateOptions, ends: readonly number[]): LogitsProcessor[] {
  const { repetition_penalty, no_repeat_ngram_size, min_length, do_sample, top_k, top_p, min_p } = options;
  const processors: LogitsProcessor[] = [];
  if (repetition_penalty !== undefined && repetition_penalty !== 1)
    processors.push(repetitionPenalty(repetition_penalty));
  if (no_repeat_ngram_size) processors.push(noRepeatNgram(no_repeat_ngram_size));
  if (min_length) processors.push(minLength(min_length, ends));
  if (!do_sample) return processors;
  if (options.temperature !== undefined && options.temperature !== 1) processors.push(temperature(options.temperature));
  if (top_k) processors.push(topK(top_k));
  if (top_p !== undefined && top_p < 1) processors.push(topP(top_p));
  if (min_p) processors.push(minP(min_p));
  return processors;
}

const rowsOf = (values: Int32Array, rows: number, columns: number): number[][] =>
  Array.from({ length: rows }, (_, b) => [...values.subarray(b * columns, (b + 1) * columns)]);
