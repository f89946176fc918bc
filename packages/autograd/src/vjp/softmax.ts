import { exp, mul, sub, sum } from "@neolog/tensor";
import type { Vjp } from "./rule.ts";

export const SOFTMAX_VJP: { readonly softmax: Vjp<"softmax">; readonly logSoftmax: Vjp<"logSoftmax"> } = {
  softmax: ({ y }, g) => {
    const gy = mul(g, y);
    return [sub(gy, mul(y, sum(gy, -1, true)))];
  },
  logSoftmax: ({ y }, g) => [sub(g, mul(exp(y), sum(g, -1, true)))],
};
