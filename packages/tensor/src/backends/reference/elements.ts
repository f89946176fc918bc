import type { Buffer } from "../../backend.ts";
import { fromBfloat16, fromFloat16, toBfloat16, toFloat16 } from "../../half.ts";
import { type Layout, sizeOf } from "../../layout.ts";
import { dataOf } from "../hostMemory.ts";

/** Element `at` of a buffer of any dtype. */
export function load(buffer: Buffer, at: number): number {
  const value = dataOf(buffer)[at]!;
  if (buffer.dtype === "bfloat16") return fromBfloat16(value);
  if (buffer.dtype === "float16") return fromFloat16(value);
  return value;
}

/** Writes a number into element `at`, rounded to the buffer's dtype. */
export function store(buffer: Buffer, at: number, value: number): void {
  const stored =
    buffer.dtype === "bfloat16" ? toBfloat16(value) : buffer.dtype === "float16" ? toFloat16(value) : value;
  dataOf(buffer)[at] = stored;
}

/** Where each element of a layout lies in the buffer, in row-major order. */
export function positions({ shape, strides, offset }: Layout): number[] {
  let at = [offset];
  if (sizeOf(shape) === 0) return [];
  shape.forEach((d, axis) => {
    at = at.flatMap((first) => Array.from({ length: d }, (_, i) => first + i * strides[axis]!));
  });
  return at;
}
