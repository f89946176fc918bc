import { type Tensor, matmul, transpose } from "@neolog/tensor";
import type { Vjp } from "./rule.ts";

/** y = a·b: ∂a = g·bᵀ, ∂b = aᵀ·g; a frozen side costs nothing. */
export const MATMUL_VJP: { readonly matmul: Vjp<"matmul"> } = {
  matmul: ({ inputs }, g) => {
    const [a, b] = inputs as readonly [Tensor, Tensor];
    return [a.tracked ? matmul(g, transpose(b)) : null, b.tracked ? matmul(transpose(a), g) : null];
  },
};
