import { type Tensor, neg, rope } from "@neolog/tensor";
import type { Vjp } from "./rule.ts";

/** The gradient turns back by the same angles. cos and sin are constants of the position. */
export const ROPE_VJP: { readonly rope: Vjp<"rope"> } = {
  rope: ({ inputs, attrs: { interleaved } }, g) => {
    const [, cos, sin] = inputs as readonly [Tensor, Tensor, Tensor];
    return [rope(g, cos, neg(sin), interleaved), null, null];
  },
};
