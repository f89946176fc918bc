import { type Tensor, assign, persist, zeros } from "@neolog/tensor";

/** A copy that lives until it is disposed. */
export function copyOf(t: Tensor): Tensor {
  const copy = persist(zeros(t.shape, t.dtype, t.backend));
  assign(copy, t);
  return copy;
}
