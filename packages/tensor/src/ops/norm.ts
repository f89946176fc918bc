import { ShapeError } from "../errors.ts";
import { fused } from "../op.ts";
import type { Tensor } from "../tensor.ts";
import { add, mul, rsqrt, square, sub } from "./pointwise.ts";
import { mean } from "./reduce.ts";

/** (x − mean) / √(variance + eps) · weight + bias over the last axis; weight, bias [n]. Ba et al. 2016, https://arxiv.org/abs/1607.06450 */
export function layerNorm(x: Tensor, weight: Tensor, bias: Tensor, eps: number): Tensor {
  checkWidth("layerNorm", x, weight);
  checkWidth("layerNorm", x, bias);
  return fused("layerNorm", [x, weight, bias], { eps }, x.shape, () => {
    const centred = sub(x, mean(x, -1, true));
    const scale = rsqrt(add(mean(square(centred), -1, true), eps));
    return add(mul(mul(centred, scale), weight), bias);
  });
}

/** x / √(mean x² + eps) · weight over the last axis; weight [n]. Zhang & Sennrich 2019, https://arxiv.org/abs/1910.07467 */
export function rmsNorm(x: Tensor, weight: Tensor, eps: number): Tensor {
  checkWidth("rmsNorm", x, weight);
  return fused("rmsNorm", [x, weight], { eps }, x.shape, () =>
    mul(mul(x, rsqrt(add(mean(square(x), -1, true), eps))), weight),
  );
}

function checkWidth(op: string, x: Tensor, weight: Tensor): void {
  if (weight.shape.length !== 1 || weight.shape[0] !== x.shape.at(-1)) {
    throw new ShapeError(op, "weight and bias must have the size of the last axis", x.shape, weight.shape);
  }
}
