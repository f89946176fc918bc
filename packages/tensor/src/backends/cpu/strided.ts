import type { Shape } from "../../errors.ts";
import type { Layout } from "../../layout.ts";

/** A loop nest over several layouts of one shape: `sizes` outside, `n` inside. */
export interface Nest {
  readonly sizes: readonly number[];
  readonly n: number;
  /** For each layout its strides over `sizes`, and its step over `n`. */
  readonly strides: readonly (readonly number[])[];
  readonly steps: readonly number[];
}

/** Drops axes of size 1 and merges neighbours that lie the same way in every layout. */
export function collapse(shape: Shape, layouts: readonly Layout[]): Nest {
  const sizes: number[] = [];
  const strides: number[][] = layouts.map(() => []);
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    const size = shape[axis]!;
    if (size === 1) continue;
    const outer = sizes.length - 1;
    const merges = outer >= 0 && layouts.every((x, i) => x.strides[axis] === strides[i]![outer]! * sizes[outer]!);
    if (merges) sizes[outer]! *= size;
    else {
      sizes.push(size);
      layouts.forEach((x, i) => strides[i]!.push(x.strides[axis]!));
    }
  }
  return {
    sizes: sizes.slice(1).toReversed(),
    n: sizes[0] ?? 1,
    strides: strides.map((s) => s.slice(1).toReversed()),
    steps: strides.map((s) => s[0] ?? 0),
  };
}

/** Where each index of the first `axes` axes begins in the buffer, in row-major order. */
export function starts({ shape, strides, offset }: Layout, axes: number): number[] {
  let at = [offset];
  for (let axis = 0; axis < axes; axis++) {
    const next: number[] = [];
    for (const first of at) for (let i = 0; i < shape[axis]!; i++) next.push(first + i * strides[axis]!);
    at = next;
  }
  return at;
}
