import { CausalLM, type LanguageModel, MaskedLM, type Sequence } from "@neolog/models";

/** How a model predicts: the token that follows, the token that stood there, or, from another text, the tokens of a new one. */
export type ModelKind = "causal" | "masked" | "seq2seq";

export const kindOf = (model: LanguageModel): ModelKind =>
  model instanceof CausalLM ? "causal" : model instanceof MaskedLM ? "masked" : "seq2seq";

export const IGNORED = -100;

/** All positions attended to; those before `from` are not predicted. */
export const predicted = (ids: readonly number[], from = 0): Sequence => ({
  input_ids: ids,
  labels: from === 0 ? undefined : ids.map((id, i) => (i < from ? IGNORED : id)),
});

/** How many tokens a row predicts: a causal model has nothing to tell the first from. */
export function predictedTokens({ input_ids, labels = input_ids }: Sequence, kind: ModelKind): number {
  let count = 0;
  for (let i = kind === "causal" ? 1 : 0; i < labels.length; i++) if (labels[i] !== IGNORED) count++;
  return count;
}

/** The first `length` tokens. */
export const cut = ({ input_ids, attention_mask, labels }: Sequence, length = Infinity): Sequence => ({
  input_ids: Array.from(input_ids).slice(0, length),
  attention_mask: attention_mask && Array.from(attention_mask).slice(0, length),
  labels: labels && Array.from(labels).slice(0, length),
});
