import { type Layout, isContiguous, sizeOf } from "@neolog/tensor";

/** Calls `use` with where each element of a layout lies, in row-major order. */
export function positions(layout: Layout, use: (at: number, i: number) => void): void {
  const { shape, strides, offset } = layout;
  const size = sizeOf(shape);
  if (isContiguous(layout)) {
    for (let i = 0; i < size; i++) use(offset + i, i);
    return;
  }
  const index = new Array<number>(shape.length).fill(0);
  for (let i = 0, at = offset; i < size; i++) {
    use(at, i);
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      at += strides[axis]!;
      if (++index[axis]! < shape[axis]!) break;
      at -= strides[axis]! * shape[axis]!;
      index[axis] = 0;
    }
  }
}
