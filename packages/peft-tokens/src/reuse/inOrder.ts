import { type Tensor, cat, div, reshape, sum, takeRows } from "@neolog/tensor";

/** Losses that are not in the order of the batch. */
export interface Part {
  /** [n] */
  readonly losses: Tensor;
  /** The places of runs of them, one after the other, among all that count. */
  readonly at: readonly Span[];
}
export type Span = readonly [start: number, end: number];

/** Their mean: added up in the order of the batch, as cross entropy does. */
export function meanInOrder(parts: readonly Part[], total: number): Tensor {
  const order = new Int32Array(total);
  let from = 0;
  for (const [start, end] of parts.flatMap(({ at }) => at)) for (let i = start; i < end; i++) order[i] = from++;
  const losses = reshape(cat(parts.map((part) => part.losses)), [total, 1]);
  return div(sum(takeRows(losses, order)), total);
}
