import { logSoftmaxGrad, softmaxGrad } from "@neolog/tensor";
import type { Vjp } from "./rule.ts";

export const SOFTMAX_VJP: { readonly softmax: Vjp<"softmax">; readonly logSoftmax: Vjp<"logSoftmax"> } = {
  softmax: ({ y }, g) => [softmaxGrad(y, g)],
  logSoftmax: ({ y }, g) => [logSoftmaxGrad(y, g)],
};
