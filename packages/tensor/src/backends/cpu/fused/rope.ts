import type { View } from "../../../backend.ts";
import { contiguousLayout, expandLayout } from "../../../layout.ts";
import type { OpAttrs } from "../../../op.ts";
import { starts } from "../strided.ts";
import { float32 } from "./float32.ts";

export function rope(out: View, [x, cos, sin]: readonly View[], { interleaved }: OpAttrs["rope"]): void {
  const { shape } = x!.layout;
  const half = shape.at(-1)! / 2;
  const angles = expandLayout(contiguousLayout(cos!.layout.shape), [...shape.slice(0, -1), half]);
  const step = angles.strides.at(-1)!;
  const rows = starts(angles, shape.length - 1);
  const [c, s] = [float32(cos!), float32(sin!)];
  if (interleaved) turn(float32(out), float32(x!), c, s, rows, step, half, 1, 2);
  else turn(float32(out), float32(x!), c, s, rows, step, half, half, 1);
}

/** Turns pair i of row r, at i·stride and i·stride + apart, by the angle at rows[r] + i·step. */
function turn(
  out: Float32Array,
  x: Float32Array,
  cos: Float32Array,
  sin: Float32Array,
  rows: readonly number[],
  step: number,
  half: number,
  apart: number,
  stride: number,
): void {
  for (let r = 0; r < rows.length; r++) {
    let at = r * 2 * half;
    let angle = rows[r]!;
    for (let i = 0; i < half; i++, at += stride, angle += step) {
      const c = cos[angle]!;
      const s = sin[angle]!;
      const x1 = x[at]!;
      const x2 = x[at + apart]!;
      out[at] = x1 * c - x2 * s;
      out[at + apart] = x2 * c + x1 * s;
    }
  }
}
