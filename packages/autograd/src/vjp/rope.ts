import { type Tensor, add, isTracked, mul, neg, rope, slice, sub } from "@neolog/tensor";
import type { Vjp } from "./rule.ts";

/** The gradient turns back by the same angles; those of learned angles are the parts of g along and across each pair. */
export const ROPE_VJP: { readonly rope: Vjp<"rope"> } = {
  rope: ({ inputs, attrs: { interleaved } }, g) => {
    const [x, cos, sin] = inputs as readonly [Tensor, Tensor, Tensor];
    const gx = isTracked(x) ? rope(g, cos, neg(sin), interleaved) : null;
    if (!isTracked(cos) && !isTracked(sin)) return [gx, null, null];
    const [x1, x2] = pairsOf(x, interleaved);
    const [g1, g2] = pairsOf(g, interleaved);
    return [gx, add(mul(g1, x1), mul(g2, x2)), sub(mul(g2, x1), mul(g1, x2))];
  },
};

/** First and second of every pair: [..., D] → two of [..., D/2]. */
function pairsOf(x: Tensor, interleaved: boolean): readonly [Tensor, Tensor] {
  const half = x.shape.at(-1)! / 2;
  if (!interleaved) return [slice(x, -1, 0, half), slice(x, -1, half)];
  return [slice(x, -1, 0, undefined, 2), slice(x, -1, 1, undefined, 2)];
}
