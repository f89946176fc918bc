import { ShapeError } from "../errors.ts";
import { fused, fusedGradient } from "../op.ts";
import type { Tensor } from "../tensor.ts";
import { arange } from "../create.ts";
import { reshape, unsqueeze } from "./movement.ts";
import { add, div, equal, mul, neg, notEqual, square, sub, where } from "./pointwise.ts";
import { mean, sum } from "./reduce.ts";
import { takeRows } from "./rows.ts";
import { logSoftmax, softmax } from "./softmax.ts";

/**
 * −log softmax(logits)[target], averaged over the rows whose target is not `ignoreIndex`; NaN when there is none, as in torch.
 * logits [N, V], targets int32 [N] → [].
 */
export function crossEntropy(logits: Tensor, targets: Tensor, ignoreIndex = -100): Tensor {
  checkTargets("crossEntropy", logits, targets);
  return fused("crossEntropy", [logits, targets], { ignoreIndex }, [], () =>
    nllLoss(logSoftmax(logits), targets, ignoreIndex),
  );
}

/** The gradient of crossEntropy by the logits, (softmax(logits) − one-hot targets)·g / counted rows; 0 in ignored rows. g []. */
export function crossEntropyGrad(logits: Tensor, targets: Tensor, g: Tensor, ignoreIndex = -100): Tensor {
  checkTargets("crossEntropyGrad", logits, targets);
  if (g.size !== 1) throw new ShapeError("crossEntropyGrad", "a gradient of one element is needed", g.shape);
  return fusedGradient("crossEntropyGrad", [logits, targets, g], { ignoreIndex }, logits.shape, () => {
    const V = logits.shape[1]!;
    const counted = unsqueeze(notEqual(targets, ignoreIndex), 1); // [N, 1]
    const hit = equal(unsqueeze(targets, 1), arange(V, "int32", logits.backend)); // [N, V]
    return where(counted, mul(sub(softmax(logits), hit), div(reshape(g, []), sum(counted))), 0);
  });
}

function checkTargets(op: string, logits: Tensor, targets: Tensor): void {
  if (logits.shape.length !== 2 || targets.shape.length !== 1 || targets.shape[0] !== logits.shape[0])
    throw new ShapeError(op, "logits [N, V] and targets [N] are needed", logits.shape, targets.shape);
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
