import type { Buffer, View } from "../../backend.ts";
import { sizeOf } from "../../layout.ts";
import { type Engine, memoryOf } from "./engine.ts";
import type { WasmBuffer } from "./heap.ts";

type Operand = View | number;
type Use = (out: View, inputs: readonly Operand[]) => void;

/** A run of elements of a buffer. */
interface Span {
  start: number;
  end: number;
}

/**
 * Calls `use` with all views in the first memory, where most kernels compute: for those that lie elsewhere with copies of the elements
 * that they span, so that the same kernel gives the same bytes; what `out` spans is copied back.
 */
export function inFirstMemory(engine: Engine, out: View, inputs: readonly Operand[], use: Use): void {
  if (isLocal(out) && inputs.every(isLocal)) return use(out, inputs);
  const spans = new Map<Buffer, Span>();
  for (const x of [out, ...inputs]) if (!isLocal(x)) widen(spans, x as View);
  const copies = new Map<Buffer, WasmBuffer>();
  try {
    for (const [buffer, { start, end }] of spans) {
      const copy = engine.heap.allocateIn(0, buffer.dtype, end - start);
      copies.set(buffer, copy);
      copy.data.set((buffer as WasmBuffer).data.subarray(start, end));
    }
    const there = (x: View): View => {
      const copy = copies.get(x.buffer);
      if (!copy) return x;
      return { buffer: copy, layout: { ...x.layout, offset: x.layout.offset - spans.get(x.buffer)!.start } };
    };
    use(
      there(out),
      inputs.map((x) => (typeof x === "number" ? x : there(x))),
    );
    const written = copies.get(out.buffer);
    if (written) (out.buffer as WasmBuffer).data.set(written.data, spans.get(out.buffer)!.start);
  } finally {
    for (const copy of copies.values()) engine.heap.free(copy);
  }
}

const isLocal = (x: Operand): boolean => typeof x === "number" || memoryOf(x) === 0;

/** Adds the elements of a view to what is to be copied of its buffer. */
function widen(spans: Map<Buffer, Span>, { buffer, layout: { shape, strides, offset } }: View): void {
  let [start, end] = [offset, offset];
  if (sizeOf(shape) > 0) {
    for (const [axis, stride] of strides.entries()) {
      const reach = (shape[axis]! - 1) * stride;
      if (reach < 0) start += reach;
      else end += reach;
    }
    end++;
  }
  const known = spans.get(buffer);
  if (!known) spans.set(buffer, { start, end });
  else {
    known.start = Math.min(known.start, start);
    known.end = Math.max(known.end, end);
  }
}
