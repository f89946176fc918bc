import type { Random } from "@neolog/tensor";
import type { GenerateOptions } from "./generateOptions.ts";
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

/** There is no distribution to draw from. */
export class SamplingError extends Error {
  override readonly name = "SamplingError";
}

/** What acts on the scores of rows whose prompt has `promptLength` ids, in transformers' order: penalties, then what shapes a draw. */
export function processorsOf(
  options: Omit<GenerateOptions, "input_ids">,
  ends: readonly number[],
  promptLength: number,
): LogitsProcessor[] {
  const { repetition_penalty = 1, no_repeat_ngram_size = 0, min_length = 0, min_new_tokens = 0 } = options;
  const processors: LogitsProcessor[] = [];
  if (repetition_penalty !== 1) processors.push(repetitionPenalty(repetition_penalty));
  if (no_repeat_ngram_size > 0) processors.push(noRepeatNgram(no_repeat_ngram_size));
  const shortest = Math.max(min_length, min_new_tokens > 0 ? promptLength + min_new_tokens : 0);
  if (shortest > 0 && ends.length > 0) processors.push(minLength(shortest, ends));
  if (!options.do_sample) return processors;
  const { temperature: t = 1, top_k = 0, top_p = 1, min_p = 0 } = options;
  if (t !== 1) processors.push(temperature(t));
  if (top_k > 0) processors.push(topK(top_k));
  if (top_p < 1) processors.push(topP(top_p));
  if (min_p > 0) processors.push(minP(min_p));
  return processors;
}

/** The next id: the likeliest, or, given random numbers, one drawn from softmax(scores). Changes `scores`. Throws SamplingError. */
export function chooseNext(
  scores: Float32Array,
  ids: readonly number[],
  processors: readonly LogitsProcessor[],
  random: Random | null,
): number {
  for (const process of processors) process(scores, ids);
  if (!random) return argmaxOf(scores);
  const probabilities = softmaxOf(scores);
  let rest = random.next();
  for (let i = 0; i < probabilities.length; i++) {
    rest -= probabilities[i]!;
    if (rest < 0) return i;
  }
  if (Number.isNaN(rest)) {
    throw new SamplingError(
      "generate: scores must be numbers, one of them above -Infinity, to draw from them; got NaN, or none that is left",
    );
  }
  return argmaxOf(scores); // what rounding leaves of 1
}
