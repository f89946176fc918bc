import { Random, Scope, type Tensor, untracked } from "@neolog/tensor";
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

/** An option of `generate` is out of its range. */
export class GenerateOptionError extends RangeError {
  override readonly name = "GenerateOptionError";
  readonly option: string;

  constructor(option: string, mustHold: string, found: number) {
    super(`generate: ${option} must be ${mustHold}, got ${found}`);
    this.option = option;
  }
}

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
  /** Where a row ends; what generation_config.json (else config.json) says by default, null for never. */
  readonly eos_token_id?: number | readonly number[] | null | undefined;
  /** What finished rows are filled with; what the same file says, else the first end token. */
  readonly pad_token_id?: number | null | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Called after each step with the new id of every row; the next step waits for what it returns. */
  readonly onToken?: ((ids: readonly number[]) => unknown) | undefined;
}

/**
 * Prompt and continuation of each row, up to max_new_tokens or until every row has ended. Decodes with a key/value cache; the
 * same options give the same ids. Sampling is never on by default, whatever generation_config.json says.
 * Throws GenerateOptionError.
 */
export async function generate(model: CausalLM, options: GenerateOptions): Promise<number[][]> {
  checkRanges(options);
  const prompt = toHost("input_ids", options.input_ids);
  const { rows, columns } = prompt;
  const mask = options.attention_mask
    ? toHostLike("attention_mask", options.attention_mask, rows, columns).values
    : new Int32Array(rows * columns).fill(1);
  const ids = rowsOf(prompt.values, rows, columns);
  const attention = rowsOf(mask, rows, columns);
  const { eos_token_id, pad_token_id } = { ...(model.generationConfig ?? model.config), ...defined(options) };
  const ends = [eos_token_id ?? []].flat();
  const pad = pad_token_id ?? ends[0] ?? 0;
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
      await options.onToken?.(next);
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
        logits_to_keep: 1,
      }),
    );
    last = scope.keep(logits);
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

/** The options that were given. */
const defined = (options: GenerateOptions): Partial<GenerateOptions> =>
  Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));

const RANGES: Readonly<Record<string, readonly [mustHold: string, holds: (x: number) => boolean]>> = {
  max_new_tokens: ["an integer of at least 0", (x) => Number.isInteger(x) && x >= 0],
  temperature: ["above 0 (for greedy decoding leave do_sample out)", (x) => x > 0 && x < Infinity],
  top_k: ["an integer of at least 0", (x) => Number.isInteger(x) && x >= 0],
  top_p: ["above 0 and at most 1", (x) => x > 0 && x <= 1],
  min_p: ["between 0 and 1", (x) => x >= 0 && x <= 1],
  repetition_penalty: ["above 0", (x) => x > 0 && x < Infinity],
  no_repeat_ngram_size: ["an integer of at least 0", (x) => Number.isInteger(x) && x >= 0],
  min_length: ["an integer of at least 0", (x) => Number.isInteger(x) && x >= 0],
  seed: ["an integer", Number.isSafeInteger],
};

function checkRanges(options: GenerateOptions): void {
  for (const [option, value] of Object.entries(options)) {
    const range = RANGES[option];
    if (range && value !== undefined && !range[1](value)) throw new GenerateOptionError(option, range[0], value);
  }
}

const rowsOf = (values: Int32Array, rows: number, columns: number): number[][] =>
  Array.from({ length: rows }, (_, b) => [...values.subarray(b * columns, (b + 1) * columns)]);
