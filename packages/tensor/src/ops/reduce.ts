import { isStorageDType } from "../dtype.ts";
import type { Backend, Reduction, View } from "../backend.ts";
import { ShapeError } from "../errors.ts";
import { contiguousLayout, resolveAxis, sizeOf } from "../layout.ts";
import { execute, untracked, withContiguous } from "../op.ts";
import type { Tensor } from "../tensor.ts";
import { cast, permute, reshape, transpose, unsqueeze } from "./movement.ts";
import { add, div, equal, exp, lessEqual, log, square, sub, where } from "./pointwise.ts";
import { arange } from "../create.ts";

/** Axes to reduce: one, several, or all when absent. */
export type Axes = number | readonly number[] | undefined;

function resolveAxes(op: string, axes: Axes, { shape }: Tensor): number[] {
  if (axes === undefined) return shape.map((_, axis) => axis);
  const list = typeof axes === "number" ? [axes] : axes;
  return [...new Set(list.map((axis) => resolveAxis(op, axis, shape)))].toSorted((i, j) => i - j);
}

/** Sizes 1 at the reduced axes, as the gradient needs them. */
function reduceKeeping(op: "sum" | "max" | "min", x: Tensor, axes: readonly number[]): Tensor {
  if (isStorageDType(x.dtype)) return reduceKeeping(op, cast(x, "float32"), axes);
  const shape = x.shape.map((d, axis) => (axes.includes(axis) ? 1 : d));
  if (op !== "sum" && x.size === 0 && sizeOf(shape) > 0)
    throw new ShapeError(op, "reduced axes must not be empty", x.shape);
  return execute(op, [x], { axes }, { shape, dtype: x.dtype }, (backend, out) =>
    runReduction(op, backend, out, x, axes),
  );
}

/** Brings the reduced axes together, in order, so that the kernel sees a contiguous [outer, n, inner]. */
function runReduction(reduction: Reduction, backend: Backend, out: View, x: Tensor, axes: readonly number[]): void {
  const kept = x.shape.map((_, axis) => axis).filter((axis) => !axes.includes(axis));
  const adjacent = axes.every((axis, i) => i === 0 || axis === axes[i - 1]! + 1);
  const first = adjacent ? (axes[0] ?? 0) : kept.length;
  const order = kept.toSpliced(first, 0, ...axes);
  const n = axes.reduce((product, axis) => product * x.shape[axis]!, 1);
  const outer = order.slice(0, first).reduce((product, axis) => product * x.shape[axis]!, 1);
  const inner = order.slice(first + axes.length).reduce((product, axis) => product * x.shape[axis]!, 1);
  const moved = untracked(() => permute(x, order));
  withContiguous(reduction, [moved], ([view]) => {
    const input = {
      buffer: view!.buffer,
      layout: contiguousLayout([outer, n, inner], view!.layout.offset),
    };
    backend.reduce(reduction, { buffer: out.buffer, layout: contiguousLayout([outer, inner]) }, input);
  });
  moved.dispose();
}

function dropAxes(x: Tensor, axes: readonly number[], keepdim: boolean): Tensor {
  return keepdim
    ? x
    : reshape(
        x,
        x.shape.filter((_, axis) => !axes.includes(axis)),
      );
}

const reduction =
  (op: "sum" | "max" | "min") =>
  (x: Tensor, axes?: Axes, keepdim = false) => {
    const resolved = resolveAxes(op, axes, x);
    return dropAxes(reduceKeeping(op, x, resolved), resolved, keepdim);
  };

/** Σ over axes, all by default. */
export const sum = reduction("sum");
/** Largest element; NaN wins. The gradient is shared evenly among equal maxima, as torch.amax. */
export const max = reduction("max");
/** Smallest element; NaN wins. */
export const min = reduction("min");

/** Mean over axes, all by default. */
export function mean(x: Tensor, axes?: Axes, keepdim = false): Tensor {
  const n = resolveAxes("mean", axes, x).reduce((product, axis) => product * x.shape[axis]!, 1);
  return div(sum(x, axes, keepdim), n);
}

/** Variance over axes; `correction` 1 is the unbiased estimate. */
export function variance(x: Tensor, axes?: Axes, keepdim = false, correction = 1): Tensor {
  const resolved = resolveAxes("variance", axes, x);
  const n = resolved.reduce((product, axis) => product * x.shape[axis]!, 1);
  const squares = sum(square(sub(x, mean(x, resolved, true))), resolved, keepdim);
  return div(squares, Math.max(0, n - correction));
}

/** log Σ exp x over one axis, without overflow. */
export function logSumExp(x: Tensor, axis = -1, keepdim = false): Tensor {
  const along = resolveAxis("logSumExp", axis, x.shape);
  const largest = untracked(() => {
    const m = max(x, along, true);
    return where(equal(sub(m, m), 0), m, 0);
  });
  const total = add(log(sum(exp(sub(x, largest)), along, true)), largest);
  return dropAxes(total, [along], keepdim);
}

/** Index of the first maximum along an axis, int32; not differentiable. */
export function argmax(x: Tensor, axis = -1, keepdim = false): Tensor {
  const along = resolveAxis("argmax", axis, x.shape);
  if (x.shape[along] === 0) throw new ShapeError("argmax", "the axis must not be empty", x.shape);
  if (isStorageDType(x.dtype)) return argmax(cast(x, "float32"), axis, keepdim);
  return untracked(() => {
    const result = { shape: x.shape.with(along, 1), dtype: "int32" } as const;
    const index = execute("max", [x], { axes: [along] }, result, (backend, out) =>
      runReduction("argmax", backend, out, x, [along]),
    );
    return dropAxes(index, [along], keepdim);
  });
}

/** Running sum along an axis: Σ over j ≤ i of x[j]. */
export function cumsum(x: Tensor, axis = -1): Tensor {
  const along = resolveAxis("cumsum", axis, x.shape);
  const last = transpose(x, along, -1);
  const at = arange(x.shape[along]!, "int32", x.backend);
  const upTo = lessEqual(at, unsqueeze(at, 1)); // [i, j]
  return transpose(sum(where(upTo, unsqueeze(last, -2), 0), -1), along, -1);
}
