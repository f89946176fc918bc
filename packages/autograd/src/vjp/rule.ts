import type { OpAttrs, OpName, Operand, Tensor } from "@neolog/tensor";

/** What a rule may look at: the operands, the attributes and the result of the op. */
export interface Saved<N extends OpName> {
  readonly inputs: readonly Operand[];
  readonly attrs: OpAttrs[N];
  readonly y: Tensor;
}

/**
 * Given g = ∂loss/∂y, one gradient per input, or null where none is wanted. Rules may answer in the broadcast shape:
 * `backward` sums it away. They ask `isTracked` before they compute anything large.
 */
export type Vjp<N extends OpName> = (saved: Saved<N>, g: Tensor) => readonly (Tensor | null)[];
