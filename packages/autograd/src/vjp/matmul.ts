import { type Tensor, matmul, reshape, transpose } from "@neolog/tensor";
import type { Vjp } from "./rule.ts";

/** y = a·b: ∂a = g·bᵀ, ∂b = aᵀ·g; a frozen side costs nothing. */
export const MATMUL_VJP: { readonly matmul: Vjp<"matmul"> } = {
  matmul: ({ inputs }, g) => {
    const [a, b] = inputs as readonly [Tensor, Tensor];
    return [a.tracked ? matmul(g, transpose(b)) : null, b.tracked ? weightGradient(a, b, g) : null];
  },
};

/** Of a weight [k, n] without a batch axis: one product over all rows. */
function weightGradient(a: Tensor, { shape: [k, n, ...more] }: Tensor, g: Tensor): Tensor {
  if (more.length > 0 || a.shape.length === 2) return matmul(transpose(a), g);
  const rows = a.shape.slice(0, -1).reduce((product, d) => product * d, 1);
  return matmul(transpose(reshape(a, [rows, k!])), reshape(g, [rows, n!]));
}
