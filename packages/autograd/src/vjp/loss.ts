import {
  type Tensor,
  crossEntropyGrad,
  isTracked,
  linearCrossEntropyRowsGrad,
  linearCrossEntropyWeightGrad,
  mul,
  unsqueeze,
} from "@neolog/tensor";
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
    const [hidden, weight, targets, rows] = inputs as readonly Tensor[];
    const { reduction, hiddenGrad, rowsGrad } = attrs;
    const later = rows && !rowsGrad && isTracked(rows);
    return [
      hiddenGrad && mul(hiddenGrad, reduction === "mean" ? g : unsqueeze(g, 1)),
      isTracked(weight!) ? linearCrossEntropyWeightGrad(hidden!, weight!, targets!, attrs, g) : null,
      null,
      later ? linearCrossEntropyRowsGrad(hidden!, weight!, targets!, rows, attrs, g) : rowsGrad && mul(rowsGrad, g),
    ];
  },
};
