import { type Shape, ShapeError } from "./errors.ts";

/** Where the elements of a tensor lie in its buffer: element (i, j, …) is at offset + i·strides[0] + j·strides[1] + …. Immutable. */
export interface Layout {
  readonly shape: Shape;
  readonly strides: readonly number[];
  readonly offset: number;
}

/** Number of elements; 1 for a scalar. */
export const sizeOf = (shape: Shape): number => shape.reduce((n, d) => n * d, 1);

export const sameShape = (a: Shape, b: Shape): boolean => a.length === b.length && a.every((d, i) => d === b[i]);

/** Row-major layout of `shape`, starting at `offset`. */
export function contiguousLayout(shape: Shape, offset = 0): Layout {
  const strides = new Array<number>(shape.length);
  let stride = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    strides[i] = stride;
    stride *= shape[i]!;
  }
  return { shape, strides, offset };
}

/** True when the elements lie one after the other in row-major order; axes of size 1 do not matter. */
export function isContiguous({ shape, strides }: Layout): boolean {
  if (shape.includes(0)) return true;
  let expected = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] !== 1 && strides[i] !== expected) return false;
    expected *= shape[i]!;
  }
  return true;
}

/** Axis −1 is the last one. Throws ShapeError outside [−rank, rank). */
export function resolveAxis(op: string, axis: number, shape: Shape): number {
  const resolved = axis < 0 ? axis + shape.length : axis;
  if (!Number.isInteger(axis) || resolved < 0 || resolved >= shape.length) {
    throw new ShapeError(op, `axis ${axis} must be in [${-shape.length}, ${shape.length})`, shape);
  }
  return resolved;
}

/** NumPy broadcasting: align on the right, stretch ones. */
export function broadcastShapes(op: string, ...shapes: Shape[]): Shape {
  const rank = Math.max(0, ...shapes.map((s) => s.length));
  return Array.from({ length: rank }, (_, i) => {
    let size = 1;
    for (const shape of shapes) {
      const d = shape[shape.length - rank + i] ?? 1;
      if (d === 1 || d === size) continue;
      if (size !== 1) throw new ShapeError(op, "shapes must broadcast", ...shapes);
      size = d;
    }
    return size;
  });
}

/** True when `shape` broadcasts to `target` as it is. */
export function broadcastsTo(shape: Shape, target: Shape): boolean {
  const lead = target.length - shape.length;
  return lead >= 0 && shape.every((d, i) => d === 1 || d === target[lead + i]);
}

/** The same elements seen as `shape`: stretched axes get stride 0. `shape` must be a broadcast of the layout's. */
export function expandLayout(layout: Layout, shape: Shape): Layout {
  const lead = shape.length - layout.shape.length;
  const strides = shape.map((d, i) =>
    i < lead || (layout.shape[i - lead] === 1 && d !== 1) ? 0 : layout.strides[i - lead]!,
  );
  return { shape, strides, offset: layout.offset };
}

export function permuteLayout({ shape, strides, offset }: Layout, axes: readonly number[]): Layout {
  return { shape: axes.map((a) => shape[a]!), strides: axes.map((a) => strides[a]!), offset };
}

/** The same elements in row-major order as `shape`, or null when only a copy can do it. */
export function reshapeLayout(layout: Layout, shape: Shape): Layout | null {
  if (isContiguous(layout)) return contiguousLayout(shape, layout.offset);
  const strides: number[] = [];
  let from = 0;
  let to = 0;
  const old = layout.shape.flatMap((d, i) => (d === 1 ? [] : [{ size: d, stride: layout.strides[i]! }]));
  while (to < shape.length) {
    if (shape[to] === 1) {
      strides[to++] = 0;
      continue;
    }
    let oldSize = old[from]!.size;
    let newSize = shape[to]!;
    let oldEnd = from + 1;
    let newEnd = to + 1;
    while (oldSize !== newSize) {
      if (oldSize < newSize) oldSize *= old[oldEnd++]!.size;
      else newSize *= shape[newEnd++]!;
    }
    for (let i = from; i < oldEnd - 1; i++) if (old[i]!.stride !== old[i + 1]!.stride * old[i + 1]!.size) return null;
    let stride = old[oldEnd - 1]!.stride;
    for (let i = newEnd - 1; i >= to; i--) {
      strides[i] = stride;
      stride *= shape[i]!;
    }
    from = oldEnd;
    to = newEnd;
  }
  return { shape, strides, offset: layout.offset };
}

/** Keeps `size` elements of `axis` from `start`, `step` apart. */
export function sliceLayout(layout: Layout, axis: number, start: number, size: number, step = 1): Layout {
  const shape = layout.shape.with(axis, size);
  const strides = layout.strides.with(axis, layout.strides[axis]! * step);
  return { shape, strides, offset: layout.offset + (size > 0 ? start * layout.strides[axis]! : 0) };
}

/** Axes from the widest stride to the narrowest, where the elements lie in one run in that order; null where they are row-major or lie apart. */
export function memoryOrder(layout: Layout): number[] | null {
  if (isContiguous(layout)) return null;
  const axes = [...layout.shape.keys()].toSorted((a, b) => layout.strides[b]! - layout.strides[a]!);
  return isContiguous(permuteLayout(layout, axes)) ? axes : null;
}

/**
 * Rows of `width` elements from the start of one head to the start of the next, for x [B, K, n, width] whose rows lie one after the
 * other and whose heads lie evenly apart, as in a cache with room for more rows; null where they do not.
 */
export function rowsPerHead({ shape, strides }: Layout): number | null {
  const [B, K, n, width] = shape as [number, number, number, number];
  if ((width > 1 && strides[3] !== 1) || (n > 1 && strides[2] !== width)) return null;
  if (B * K <= 1 || n * width === 0) return n;
  const step = K > 1 ? strides[1]! : strides[0]!;
  if (K > 1 && B > 1 && strides[0] !== K * step) return null;
  return step % width === 0 ? step / width : null;
}
