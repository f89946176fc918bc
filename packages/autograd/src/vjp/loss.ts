import { type Tensor, crossEntropyGrad, isTracked, linearCrossEntropyWeightGrad, mul } from "@neolog/tensor";
import type { Vjp } from "./rule.ts";

export const LOSS_VJP: {
  readonly crossEntropy: Vjp<"crossEntropy">;
  readonly linearCrossEntropy: Vjp<"linearCrossEntropy">;
} = {
  crossEntropy: ({ inputs: [logits, targets], attrs: { ignoreIndex } }, g) => [
    crossEntropyGrad(logits as Tensor, targets as Tensor, g, ignoreIndex),
    null,
  ],
  linearCrossEntropy: ({ inputs, attrs }, g) => {
    const [hidden, weight, targets] = inputs as readonly Tensor[];
    return [
      attrs.hiddenGrad && mul(attrs.hiddenGrad, g),
      isTracked(weight!) ? linearCrossEntropyWeightGrad(hidden!, weight!, targets!, attrs, g) : null,
      null,
      attrs.rowsGrad && mul(attrs.rowsGrad, g),
    ];
  },
};
