import { resolveAxis } from "../layout.ts";
import { fused, untracked } from "../op.ts";
import type { Tensor } from "../tensor.ts";
import { contiguous, transpose } from "./movement.ts";
import { div, exp, log, sub } from "./pointwise.ts";
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
