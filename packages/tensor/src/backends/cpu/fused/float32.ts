import type { View } from "../../../backend.ts";
import { sizeOf } from "../../../layout.ts";
import { dataOf } from "../../hostMemory.ts";
import { copy } from "../copy.ts";

/** The elements of a contiguous view as float32: its own memory where it has that dtype, else a converted copy. */
export function float32(view: View): Float32Array {
  const { buffer, layout } = view;
  const size = sizeOf(layout.shape);
  const data = dataOf(buffer);
  if (data instanceof Float32Array) return data.subarray(layout.offset, layout.offset + size);
  const widened = new Float32Array(size);
  copy(
    { buffer: { dtype: "float32", length: size, data: widened } as View["buffer"], layout: { ...layout, offset: 0 } },
    view,
  );
  return widened;
}
