import { CausalLM, type LanguageModel, MaskedLM } from "@neolog/models";

/** How a model predicts: the token that follows, the token that stood there, or, from another text, the tokens of a new one. */
export type ModelKind = "causal" | "masked" | "seq2seq";

export const kindOf = (model: LanguageModel): ModelKind =>
  model instanceof CausalLM ? "causal" : model instanceof MaskedLM ? "masked" : "seq2seq";

/** A row ready for the model. Labels are as long as the input, but for an encoder-decoder. */
export interface Example {
  readonly input_ids: readonly number[];
  readonly attention_mask: readonly number[];
  /** −100 where nothing is to be predicted. */
  readonly labels: readonly number[];
}

export const IGNORED = -100;

/** All positions attended to; those before `from` are not predicted. */
export const predicted = (ids: readonly number[], from = 0): Example => ({
  input_ids: ids,
  attention_mask: ids.map(() => 1),
  labels: ids.map((id, i) => (i < from ? IGNORED : id)),
});

/** How many tokens a row predicts: a causal model has nothing to tell the first from. */
export const predictedTokens = ({ labels }: Example, kind: ModelKind): number =>
  (kind === "causal" ? labels.slice(1) : labels).filter((label) => label !== IGNORED).length;

/** The first `length` tokens. */
export const cut = ({ input_ids, attention_mask, labels }: Example, length = Infinity): Example => ({
  input_ids: input_ids.slice(0, length),
  attention_mask: attention_mask.slice(0, length),
  labels: labels.slice(0, length),
});

/** Examples as one batch: padded on the right, padding neither attended to nor predicted. Each is [B, its longest]. */
export function collate(
  examples: readonly Example[],
  pad = 0,
): { input_ids: number[][]; attention_mask: number[][]; labels: number[][] } {
  const padded = (key: keyof Example, fill: number): number[][] => {
    const length = Math.max(...examples.map((example) => example[key].length));
    return examples.map((example) => [
      ...example[key],
      ...Array.from({ length: length - example[key].length }, () => fill),
    ]);
  };
  return {
    input_ids: padded("input_ids", pad),
    attention_mask: padded("attention_mask", 0),
    labels: padded("labels", IGNORED),
  };
}
