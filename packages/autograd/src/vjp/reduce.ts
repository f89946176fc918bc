import { type Tensor, div, equal, expand, mul, sum } from "@neolog/tensor";
import type { Vjp } from "./rule.ts";

/** Equal extremes share the gradient evenly, as torch.amax. */
const extreme: Vjp<"max" | "min"> = ({ inputs, attrs, y }, g) => {
  const hit = equal(inputs[0] as Tensor, y);
  return [mul(hit, div(g, sum(hit, attrs.axes, true)))];
};

export const REDUCE_VJP: { readonly sum: Vjp<"sum">; readonly max: Vjp<"max">; readonly min: Vjp<"min"> } = {
  sum: ({ inputs }, g) => [expand(g, (inputs[0] as Tensor).shape)],
  max: extreme,
  min: extreme,
};
