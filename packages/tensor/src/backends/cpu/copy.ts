import type { View } from "../../backend.ts";
import { hostArray } from "../../dtype.ts";
import { toBfloat16, toFloat16 } from "../../half.ts";
import { contiguousLayout, isContiguous, sizeOf } from "../../layout.ts";
import { type HostBuffer, dataOf } from "../hostMemory.ts";
import { pointwise } from "./pointwise.ts";

/** out[i] = x[i] over any strides, converting the dtype; the two may share a buffer. */
export function copy(out: View, x: View): void {
  const size = sizeOf(out.layout.shape);
  if (size === 0) return;
  if (out.buffer.dtype === x.buffer.dtype && isContiguous(out.layout) && isContiguous(x.layout)) {
    dataOf(out.buffer).set(dataOf(x.buffer).subarray(x.layout.offset, x.layout.offset + size), out.layout.offset);
  } else if (out.buffer === x.buffer) {
    const { dtype } = x.buffer;
    const buffer: HostBuffer = { dtype, length: size, data: hostArray(dtype, size) };
    const aside = { buffer, layout: contiguousLayout(out.layout.shape) };
    copy(aside, x);
    copy(out, aside);
  } else pointwise("a", out, [x]);
}

/** Every element of `out` becomes `value`, rounded to its dtype. */
export function fill(out: View, value: number): void {
  if (!isContiguous(out.layout)) return pointwise("a", out, [value]);
  const { offset, shape } = out.layout;
  const { dtype } = out.buffer;
  const stored = dtype === "bfloat16" ? toBfloat16(value) : dtype === "float16" ? toFloat16(value) : value;
  dataOf(out.buffer).fill(stored, offset, offset + sizeOf(shape));
}
