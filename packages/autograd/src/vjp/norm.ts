import { type Tensor, add, isTracked, mean, mul, rsqrt, square, sub } from "@neolog/tensor";
import type { Vjp } from "./rule.ts";

export const NORM_VJP: { readonly layerNorm: Vjp<"layerNorm">; readonly rmsNorm: Vjp<"rmsNorm"> } = {
  layerNorm: ({ inputs, attrs: { eps } }, g) => {
    const [x, weight, bias] = inputs as readonly [Tensor, Tensor, Tensor];
    const centred = sub(x, mean(x, -1, true));
    const scale = rsqrt(add(mean(square(centred), -1, true), eps));
    const normal = mul(centred, scale);
    const gw = mul(g, weight);
    const along = add(mean(gw, -1, true), mul(normal, mean(mul(gw, normal), -1, true)));
    return [
      isTracked(x) ? mul(sub(gw, along), scale) : null,
      isTracked(weight) ? mul(g, normal) : null,
      isTracked(bias) ? g : null,
    ];
  },
  rmsNorm: ({ inputs, attrs: { eps } }, g) => {
    const [x, weight] = inputs as readonly [Tensor, Tensor];
    const scale = rsqrt(add(mean(square(x), -1, true), eps));
    const normal = mul(x, scale);
    const gw = mul(g, weight);
    return [
      isTracked(x) ? mul(sub(gw, mul(normal, mean(mul(gw, normal), -1, true))), scale) : null,
      isTracked(weight) ? mul(g, normal) : null,
    ];
  },
};
