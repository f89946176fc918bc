import { ShapeError } from "../errors.ts";
import { sameShape } from "../layout.ts";
import { fused, fusedGradient } from "../op.ts";
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

/** The gradient of layerNorm by x, for an incoming g of x's shape. */
export function layerNormGrad(x: Tensor, weight: Tensor, g: Tensor, eps: number): Tensor {
  checkWidth("layerNormGrad", x, weight);
  checkGradient("layerNormGrad", x, g);
  return fusedGradient("layerNormGrad", [x, weight, g], { eps }, x.shape, () => {
    const centred = sub(x, mean(x, -1, true));
    const scale = rsqrt(add(mean(square(centred), -1, true), eps));
    const gw = mul(g, weight);
    const normal = mul(centred, scale);
    const along = add(mean(gw, -1, true), mul(normal, mean(mul(gw, normal), -1, true)));
    return mul(sub(gw, along), scale);
  });
}

/** The gradient of rmsNorm by x, for an incoming g of x's shape. */
export function rmsNormGrad(x: Tensor, weight: Tensor, g: Tensor, eps: number): Tensor {
  checkWidth("rmsNormGrad", x, weight);
  checkGradient("rmsNormGrad", x, g);
  return fusedGradient("rmsNormGrad", [x, weight, g], { eps }, x.shape, () => {
    const scale = rsqrt(add(mean(square(x), -1, true), eps));
    const gw = mul(g, weight);
    const normal = mul(x, scale);
    return mul(sub(gw, mul(normal, mean(mul(gw, normal), -1, true))), scale);
  });
}

function checkGradient(op: string, x: Tensor, g: Tensor): void {
  if (!sameShape(x.shape, g.shape)) throw new ShapeError(op, "input and gradient must agree", x.shape, g.shape);
}

function checkWidth(op: string, x: Tensor, weight: Tensor): void {
  if (weight.shape.length !== 1 || weight.shape[0] !== x.shape.at(-1)) {
    throw new ShapeError(op, "weight and bias must have the size of the last axis", x.shape, weight.shape);
  }
}
