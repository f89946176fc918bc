/** A row ready for the model; all three have one length. */
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

/** The first `length` tokens. */
export const cut = ({ input_ids, attention_mask, labels }: Example, length = Infinity): Example => ({
  input_ids: input_ids.slice(0, length),
  attention_mask: attention_mask.slice(0, length),
  labels: labels.slice(0, length),
});

/** Examples as one batch: padded on the right, padding neither attended to nor predicted. Each is [B, longest]. */
export function collate(
  examples: readonly Example[],
  pad = 0,
): { input_ids: number[][]; attention_mask: number[][]; labels: number[][] } {
  const length = Math.max(...examples.map(({ input_ids }) => input_ids.length));
  const padded = (key: keyof Example, fill: number): number[][] =>
    examples.map((example) => [...example[key], ...Array.from({ length: length - example[key].length }, () => fill)]);
  return {
    input_ids: padded("input_ids", pad),
    attention_mask: padded("attention_mask", 0),
    labels: padded("labels", IGNORED),
  };
}
