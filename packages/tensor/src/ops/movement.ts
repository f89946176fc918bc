import type { DType } from "../dtype.ts";
import { IndexError, type Shape, ShapeError } from "../errors.ts";
import {
  broadcastsTo,
  expandLayout,
  isContiguous,
  permuteLayout,
  reshapeLayout,
  resolveAxis,
  sameShape,
  sizeOf,
  sliceLayout,
} from "../layout.ts";
import { execute, relayout } from "../op.ts";
import type { Tensor } from "../tensor.ts";

/** x in another dtype; x itself when it has it already. float → int32 truncates toward zero. */
export function cast(x: Tensor, dtype: DType): Tensor {
  if (x.dtype === dtype) return x;
  return execute("cast", [x], { dtype }, { shape: x.shape, dtype }, (backend, out) =>
    backend.copy(out, x.view("cast")),
  );
}

/** x with its elements in row-major order; x itself when they are. */
export function contiguous(x: Tensor): Tensor {
  if (isContiguous(x.layout)) return x;
  return execute("contiguous", [x], null, x, (backend, out) => backend.copy(out, x.view("contiguous")));
}

/** The same elements in row-major order as `shape`; one size may be −1. Copies only where strides force it. */
export function reshape(x: Tensor, shape: Shape): Tensor {
  const known = shape.reduce((n, d) => (d === -1 ? n : n * d), 1);
  const resolved = shape.map((d) => (d === -1 ? x.size / known : d));
  if (sizeOf(resolved) !== x.size || resolved.some((d) => !Number.isInteger(d) || d < 0)) {
    throw new ShapeError("reshape", `shape must hold ${x.size} elements`, x.shape, shape);
  }
  if (sameShape(resolved, x.shape)) return x;
  const layout = reshapeLayout(x.layout, resolved);
  if (layout) return relayout("reshape", x, { shape: x.shape }, layout);
  return reshape(contiguous(x), resolved);
}

/** Axis i of the result is axis axes[i] of x. */
export function permute(x: Tensor, axes: readonly number[]): Tensor {
  const resolved = axes.map((axis) => resolveAxis("permute", axis, x.shape));
  if (resolved.length !== x.shape.length || new Set(resolved).size !== resolved.length) {
    throw new ShapeError("permute", `axes [${axes.join(", ")}] must name every axis once`, x.shape);
  }
  return relayout("permute", x, { axes: resolved }, permuteLayout(x.layout, resolved));
}

/** Swaps two axes, the last two by default. */
export function transpose(x: Tensor, first = -2, second = -1): Tensor {
  const i = resolveAxis("transpose", first, x.shape);
  const j = resolveAxis("transpose", second, x.shape);
  const axes = x.shape.map((_, axis) => axis);
  return permute(x, axes.with(i, j).with(j, i));
}

/** x stretched to `shape` by NumPy's rules; nothing is copied. */
export function expand(x: Tensor, shape: Shape): Tensor {
  if (!broadcastsTo(x.shape, shape)) throw new ShapeError("expand", "x must broadcast to shape", x.shape, shape);
  if (sameShape(x.shape, shape)) return x;
  return relayout("expand", x, { shape: x.shape }, expandLayout(x.layout, shape));
}

/** Elements start, start + step, … before `end` of an axis. Negative bounds count from the end. */
export function slice(x: Tensor, axis: number, start: number, end: number = Infinity, step = 1): Tensor {
  const along = resolveAxis("slice", axis, x.shape);
  const n = x.shape[along]!;
  if (!Number.isInteger(step) || step < 1) throw new IndexError("slice", "step must be a positive integer", step);
  const fraction = [start, end].find((bound) =>
    Number.isFinite(bound) ? !Number.isInteger(bound) : Number.isNaN(bound),
  );
  if (fraction !== undefined) throw new IndexError("slice", "bounds must be integers", fraction);
  const from = Math.max(0, Math.min(n, start < 0 ? start + n : start));
  const to = Math.max(from, Math.min(n, end < 0 ? end + n : end));
  const size = Math.ceil((to - from) / step);
  if (size === n && step === 1) return x;
  return relayout("slice", x, { axis: along, start: from, size, step }, sliceLayout(x.layout, along, from, size, step));
}

/** The slice at `index` of an axis, without the axis. */
export function select(x: Tensor, axis: number, index: number): Tensor {
  const along = resolveAxis("select", axis, x.shape);
  const n = x.shape[along]!;
  const at = index < 0 ? index + n : index;
  if (!Number.isInteger(at) || at < 0 || at >= n)
    throw new IndexError("select", `index must be in [${-n}, ${n})`, index);
  return squeeze(slice(x, along, at, at + 1), along);
}

/** Adds an axis of size 1 at `axis`. */
export function unsqueeze(x: Tensor, axis: number): Tensor {
  const at = resolveAxis("unsqueeze", axis, [...x.shape, 1]);
  return reshape(x, x.shape.toSpliced(at, 0, 1));
}

/** Drops an axis of size 1. */
export function squeeze(x: Tensor, axis: number): Tensor {
  const at = resolveAxis("squeeze", axis, x.shape);
  if (x.shape[at] !== 1) throw new ShapeError("squeeze", `axis ${axis} must have size 1`, x.shape);
  return reshape(x, x.shape.toSpliced(at, 1));
}

/** Joins tensors of one dtype along an axis; all other sizes agree. */
export function cat(tensors: readonly Tensor[], axis = 0): Tensor {
  const first = tensors[0];
  if (!first) throw new ShapeError("cat", "at least one tensor is needed");
  const along = resolveAxis("cat", axis, first.shape);
  for (const t of tensors) {
    if (
      t.dtype !== first.dtype ||
      t.shape.length !== first.shape.length ||
      !sameShape(t.shape.with(along, 0), first.shape.with(along, 0))
    ) {
      throw new ShapeError("cat", `dtypes and all sizes but axis ${along} must agree`, ...tensors.map((x) => x.shape));
    }
  }
  const shape = first.shape.with(
    along,
    tensors.reduce((n, t) => n + t.shape[along]!, 0),
  );
  return execute("cat", tensors, { axis: along }, { shape, dtype: first.dtype }, (backend, out) => {
    let start = 0;
    for (const t of tensors) {
      const size = t.shape[along]!;
      backend.copy({ buffer: out.buffer, layout: sliceLayout(out.layout, along, start, size) }, t.view("cat"));
      start += size;
    }
  });
}

/** Joins tensors of one shape along a new axis. */
export const stack = (tensors: readonly Tensor[], axis = 0): Tensor =>
  cat(
    tensors.map((t) => unsqueeze(t, axis)),
    axis,
  );

/** Cuts an axis into pieces of the given sizes. */
export function split(x: Tensor, sizes: readonly number[], axis = -1): Tensor[] {
  const along = resolveAxis("split", axis, x.shape);
  const total = sizes.reduce((n, size) => n + size, 0);
  if (total !== x.shape[along])
    throw new ShapeError("split", `sizes [${sizes.join(", ")}] must add up to axis ${along}`, x.shape);
  let start = 0;
  return sizes.map((size) => slice(x, along, start, (start += size)));
}

/** Each slice of `axis`, `repeats` times in a row. */
export function repeatInterleave(x: Tensor, repeats: number, axis: number): Tensor {
  const along = resolveAxis("repeatInterleave", axis, x.shape);
  const repeated = expand(unsqueeze(x, along + 1), x.shape.toSpliced(along + 1, 0, repeats));
  return reshape(repeated, x.shape.with(along, x.shape[along]! * repeats));
}
