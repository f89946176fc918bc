import { type Tensor, arange, div, equal, mul, notEqual, softmax, sub, sum, unsqueeze } from "@neolog/tensor";
import type { Vjp } from "./rule.ts";

/** ∂logits = (softmax − one-hot target) / counted rows; ignored rows give 0. */
export const LOSS_VJP: { readonly crossEntropy: Vjp<"crossEntropy"> } = {
  crossEntropy: ({ inputs, attrs: { ignoreIndex } }, g) => {
    const [logits, targets] = inputs as readonly [Tensor, Tensor];
    const counted = notEqual(targets, ignoreIndex);
    const hit = equal(unsqueeze(targets, 1), arange(logits.shape[1]!, "int32", logits.backend));
    const scale = div(mul(counted, g), sum(counted));
    return [mul(sub(softmax(logits), hit), unsqueeze(scale, 1)), null];
  },
};
