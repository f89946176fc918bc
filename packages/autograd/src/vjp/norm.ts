import { type Tensor, add, isTracked, layerNormGrad, mean, mul, rmsNormGrad, rsqrt, square, sub } from "@neolog/tensor";
import type { Vjp } from "./rule.ts";

export const NORM_VJP: { readonly layerNorm: Vjp<"layerNorm">; readonly rmsNorm: Vjp<"rmsNorm"> } = {
  layerNorm: ({ inputs, attrs: { eps } }, g) => {
    const [x, weight, bias] = inputs as readonly [Tensor, Tensor, Tensor];
    return [
      isTracked(x) ? layerNormGrad(x, weight, g, eps) : null,
      isTracked(weight) ? mul(g, rmsNormal(sub(x, mean(x, -1, true)), eps)) : null,
      isTracked(bias) ? g : null,
    ];
  },
  rmsNorm: ({ inputs, attrs: { eps } }, g) => {
    const [x, weight] = inputs as readonly [Tensor, Tensor];
    return [isTracked(x) ? rmsNormGrad(x, weight, g, eps) : null, isTracked(weight) ? mul(g, rmsNormal(x, eps)) : null];
  },
};

/** x / √(mean x² + eps) */
const rmsNormal = (x: Tensor, eps: number): Tensor => mul(x, rsqrt(add(mean(square(x), -1, true), eps)));
