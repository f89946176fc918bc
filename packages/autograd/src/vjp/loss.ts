import { type Tensor, crossEntropyGrad } from "@neolog/tensor";
import type { Vjp } from "./rule.ts";

export const LOSS_VJP: { readonly crossEntropy: Vjp<"crossEntropy"> } = {
  crossEntropy: ({ inputs: [logits, targets], attrs: { ignoreIndex } }, g) => [
    crossEntropyGrad(logits as Tensor, targets as Tensor, g, ignoreIndex),
    null,
  ],
};
