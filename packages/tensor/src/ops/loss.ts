import { ShapeError } from "../errors.ts";
import { fused } from "../op.ts";
import type { Tensor } from "../tensor.ts";
import { arange } from "../create.ts";
import { reshape } from "./movement.ts";
import { add, div, mul, neg, notEqual, square, sub, where } from "./pointwise.ts";
import { mean, sum } from "./reduce.ts";
import { takeRows } from "./rows.ts";
import { logSoftmax } from "./softmax.ts";

/**
 * −log softmax(logits)[target], averaged over the rows whose target is not `ignoreIndex`; NaN when there is none, as in torch.
 * logits [N, V], targets int32 [N] → [].
 */
export function crossEntropy(logits: Tensor, targets: Tensor, ignoreIndex = -100): Tensor {
  if (logits.shape.length !== 2 || targets.shape.length !== 1 || targets.shape[0] !== logits.shape[0]) {
    throw new ShapeError("crossEntropy", "logits [N, V] and targets [N] are needed", logits.shape, targets.shape);
  }
  return fused("crossEntropy", [logits, targets], { ignoreIndex }, [], () =>
    nllLoss(logSoftmax(logits), targets, ignoreIndex),
  );
}

/** Minus the mean of logProbabilities[i, targets[i]] over the rows whose target is not `ignoreIndex`. [N, V], int32 [N] → []. */
export function nllLoss(logProbabilities: Tensor, targets: Tensor, ignoreIndex = -100): Tensor {
  const [N, V] = logProbabilities.shape as [number, number];
  const counted = notEqual(targets, ignoreIndex);
  const position = where(counted, add(mul(arange(N, "int32", targets.backend), V), targets), -1);
  const picked = takeRows(reshape(logProbabilities, [N * V, 1]), position); // ignored rows give 0
  return div(neg(sum(picked)), sum(counted));
}

/** mean((x − y)²) */
export const mseLoss = (x: Tensor, y: Tensor): Tensor => mean(square(sub(x, y)));
