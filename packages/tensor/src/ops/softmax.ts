import { ShapeError } from "../errors.ts";
import { resolveAxis, sameShape } from "../layout.ts";
import { fused, fusedGradient, untracked } from "../op.ts";
import type { Tensor } from "../tensor.ts";
import { contiguous, transpose } from "./movement.ts";
import { div, exp, log, mul, sub } from "./pointwise.ts";
import { max, sum } from "./reduce.ts";

/** exp(x − max) / Σ exp(x − max) along an axis. */
export const softmax = alongLast("softmax", (x) => {
  const e = exp(
    sub(
      x,
      untracked(() => max(x, -1, true)),
    ),
  );
  return div(e, sum(e, -1, true));
});

/** x − max − log Σ exp(x − max) along an axis. */
export const logSoftmax = alongLast("logSoftmax", (x) => {
  const shifted = sub(
    x,
    untracked(() => max(x, -1, true)),
  );
  return sub(shifted, log(sum(exp(shifted), -1, true)));
});

/** The gradient of softmax along the last axis, y·(g − Σ g·y): its result y and the incoming g. */
export function softmaxGrad(y: Tensor, g: Tensor): Tensor {
  checkShapes("softmaxGrad", y, g);
  return fusedGradient("softmaxGrad", [y, g], null, y.shape, () => {
    const gy = mul(g, y);
    return sub(gy, mul(y, sum(gy, -1, true)));
  });
}

/** The gradient of logSoftmax along the last axis, g − exp(y)·Σ g: its result y and the incoming g. */
export function logSoftmaxGrad(y: Tensor, g: Tensor): Tensor {
  checkShapes("logSoftmaxGrad", y, g);
  return fusedGradient("logSoftmaxGrad", [y, g], null, y.shape, () => sub(g, mul(exp(y), sum(g, -1, true))));
}

function checkShapes(op: string, y: Tensor, g: Tensor): void {
  if (!sameShape(y.shape, g.shape)) throw new ShapeError(op, "result and gradient must agree", y.shape, g.shape);
}

function alongLast(
  op: "softmax" | "logSoftmax",
  composite: (x: Tensor) => Tensor,
): (x: Tensor, axis?: number) => Tensor {
  const last = (x: Tensor) => (x.size === 0 ? x : fused(op, [x], null, x.shape, () => composite(x)));
  return (x, axis = -1) => {
    const along = resolveAxis(op, axis, x.shape);
    if (along === x.shape.length - 1) return last(x);
    return transpose(last(contiguous(transpose(x, along, -1))), along, -1);
  };
}
