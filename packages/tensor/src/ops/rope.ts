import { ShapeError } from "../errors.ts";
import { broadcastsTo, memoryOrder, sameShape } from "../layout.ts";
import { fused } from "../op.ts";
import type { Tensor } from "../tensor.ts";
import { cat, permute, reshape, slice, stack } from "./movement.ts";
import { add, mul, sub } from "./pointwise.ts";

/**
 * Rotary position embedding: each pair (x₁, x₂) of the last axis turns by its angle, (x₁·cos − x₂·sin, x₂·cos + x₁·sin).
 * x [..., T, D]; cos and sin [..., T, D/2] broadcast to it. Pairs are (i, i + D/2) as in Llama checkpoints, or (2i, 2i + 1)
 * when `interleaved`. The result lies as x does. Su et al. 2021, https://arxiv.org/abs/2104.09864
 */
export function rope(x: Tensor, cos: Tensor, sin: Tensor, interleaved = false): Tensor {
  const half = x.shape.at(-1)! / 2;
  const pairs = [...x.shape.slice(0, -1), half];
  if (!sameShape(cos.shape, sin.shape) || !broadcastsTo(cos.shape, pairs)) {
    throw new ShapeError(
      "rope",
      "cos and sin must broadcast to x with half its last axis",
      x.shape,
      cos.shape,
      sin.shape,
    );
  }
  const axes = memoryOrder(x.layout);
  if (axes && axes.at(-1) === axes.length - 1) {
    const alike = (angles: Tensor): Tensor => {
      const missing = axes.length - angles.shape.length;
      return permute(reshape(angles, [...new Array<number>(missing).fill(1), ...angles.shape]), axes);
    };
    const back = axes.map((_, axis) => axes.indexOf(axis));
    return permute(rope(permute(x, axes), alike(cos), alike(sin), interleaved), back);
  }
  return fused("rope", [x, cos, sin], { interleaved }, x.shape, () => {
    if (!interleaved) {
      const x1 = slice(x, -1, 0, half);
      const x2 = slice(x, -1, half);
      return cat([sub(mul(x1, cos), mul(x2, sin)), add(mul(x2, cos), mul(x1, sin))], -1);
    }
    const x1 = slice(x, -1, 0, undefined, 2);
    const x2 = slice(x, -1, 1, undefined, 2);
    return reshape(stack([sub(mul(x1, cos), mul(x2, sin)), add(mul(x2, cos), mul(x1, sin))], -1), x.shape);
  });
}
