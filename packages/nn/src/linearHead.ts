import type { Tensor } from "@neolog/tensor";

/** A head that is one product, logits = x·Wᵀ + bias with some rows of W replaced: what a loss needs that forms no logits. */
export interface LinearHead {
  /** W [vocab, hidden] */
  readonly weight: Tensor;
  /** [vocab], or null */
  readonly bias: Tensor | null;
  /** rows [k, hidden] stand in for the rows `columns` of W, which differ from each other. */
  readonly override: { readonly rows: Tensor; readonly columns: Int32Array } | null;
}

/** A module that may be such a head: of its input, or as what a tied head reads. */
export interface MaybeLinearHead {
  /** Null where what it computes now is more than one product. */
  linearHead?(): LinearHead | null;
}
