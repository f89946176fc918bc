import type { View } from "../../../backend.ts";
import { BYTES_PER_ELEMENT, type DType } from "../../../dtype.ts";
import { contiguousLayout, isContiguous, sizeOf } from "../../../layout.ts";
import * as plain from "../../cpu/index.ts";
import { type Expr, add, at, load, mul, op, sub } from "../asm/expression.ts";
import type { FunctionBuilder, Local } from "../asm/function.ts";
import { type Engine, type ModuleDefinition, addressOf, memoryOf } from "../engine.ts";
import { WasmBuffer } from "../heap.ts";
import { narrow, toInt32 } from "../narrowing.ts";
import { loadFour, loadOne } from "../widening.ts";
import { pointwise } from "./pointwise.ts";
import { transpose } from "./transpose.ts";

/** Elements of a conversion between memories that are staged at a time. */
const STAGED = 1 << 20;

/** out[i] = x[i], converting the dtype; true when done, false where no SIMD kernel fits. */
export function copy(engine: Engine, out: View, x: View): boolean {
  if (out.buffer === x.buffer) return false;
  const size = sizeOf(out.layout.shape);
  if (size === 0) return true;
  const [to, from] = [out.buffer.dtype, x.buffer.dtype];
  const sameMemory = memoryOf(out) === memoryOf(x);
  if (isContiguous(out.layout) && isContiguous(x.layout)) {
    if (to === from) return sameMemory && copyRun(engine, out, x, size);
    if (!(`${from} ${to}` in CONVERSIONS)) return false;
    if (sameMemory) convert(engine, out, x, size);
    else convertStaged(engine, out, x, size);
    return true;
  }
  if (to !== from || !sameMemory) return false;
  return BYTES_PER_ELEMENT[to] === 4 ? copyWords(engine, out, x) : copyPairs(engine, out, x);
}

/** A run of bytes within one memory. */
function copyRun(engine: Engine, out: View, x: View, size: number): boolean {
  const bytes = BYTES_PER_ELEMENT[out.buffer.dtype];
  engine.run(COPY, "copy", [addressOf(out), addressOf(x), bytes], {
    items: size,
    work: 1,
    memory: memoryOf(out),
    grain: 64,
  });
  return true;
}

/** Elements of four bytes over any strides. */
const copyWords = (engine: Engine, out: View, x: View): boolean =>
  transpose(engine, out, x) || pointwise(engine, "a", out, [x]);

/** Elements of two bytes over strides that keep pairs of them together. */
function copyPairs(engine: Engine, out: View, x: View): boolean {
  const [to, from] = [inPairs(out), inPairs(x)];
  return to !== null && from !== null && copyWords(engine, to, from);
}

/** A view of 16-bit elements as one of 32-bit elements, or null where pairs do not stay together. */
function inPairs(view: View): View | null {
  const { shape, strides } = view.layout;
  const last = shape.length - 1;
  if (last < 0 || strides[last] !== 1 || shape[last]! % 2 !== 0) return null;
  if (strides.some((stride, axis) => axis < last && stride % 2 !== 0)) return null;
  const { memory } = view.buffer as WasmBuffer;
  return {
    buffer: new WasmBuffer("int32", sizeOf(shape) / 2, memory, addressOf(view)),
    layout: {
      shape: shape.with(last, shape[last]! / 2),
      strides: strides.map((stride, axis) => (axis < last ? stride / 2 : 1)),
      offset: 0,
    },
  };
}

/** A run of elements of another dtype within one memory. */
function convert(engine: Engine, out: View, x: View, size: number): void {
  const args = [addressOf(out), addressOf(x)];
  engine.run(COPY, `${x.buffer.dtype} ${out.buffer.dtype}`, args, {
    items: size,
    work: 1,
    memory: memoryOf(out),
    grain: 64,
  });
}

/** The same between memories: x comes to the memory of `out` part by part. */
function convertStaged(engine: Engine, out: View, x: View, size: number): void {
  const longest = Math.min(STAGED, size);
  const buffer = engine.heap.allocateIn(memoryOf(out), x.buffer.dtype, longest);
  const part = (view: View, start: number, length: number): View => ({
    buffer: view.buffer,
    layout: contiguousLayout([length], view.layout.offset + start),
  });
  try {
    for (let start = 0; start < size; start += longest) {
      const length = Math.min(longest, size - start);
      const staged = { buffer, layout: contiguousLayout([length]) };
      plain.copy(staged, part(x, start, length));
      convert(engine, part(out, start, length), staged, length);
    }
  } finally {
    engine.heap.free(buffer);
  }
}

/** Code that converts the elements at `x` to `out`: sixteen, or one. */
type Convert = (f: FunctionBuilder, out: Expr, x: Expr) => void;
interface Conversion {
  readonly sixteen: Convert;
  readonly one: Convert;
}

const toFloat32 = (dtype: "bfloat16" | "float16"): Conversion => ({
  sixteen: (f, out, x) => {
    const lanes = [0, 1, 2, 3].map((i) => f.local("v128", loadFour(f, dtype, x, 8 * i)));
    lanes.forEach((four, i) => f.store("v128.store", out, four, 16 * i));
  },
  one: (f, out, x) => f.storeLane("v128.store32_lane", out, loadOne(f, dtype, x), 0),
});

const fromFloat32 = (dtype: "bfloat16" | "float16"): Conversion => ({
  sixteen: (f, out, x) => {
    const lanes = [0, 1, 2, 3].map((i) => f.local("v128", narrow(f, dtype, load("v128.load", x, 16 * i))));
    for (const i of [0, 1])
      f.store("v128.store", out, op("i16x8.narrow_i32x4_u", lanes[2 * i]!, lanes[2 * i + 1]!), 16 * i);
  },
  one: (f, out, x) => f.storeLane("v128.store16_lane", out, narrow(f, dtype, load("v128.load32_zero", x)), 0),
});

const ofWords = (convertLanes: (f: FunctionBuilder, x: Expr) => Expr): Conversion => ({
  sixteen: (f, out, x) => {
    const lanes = [0, 1, 2, 3].map((i) => f.local("v128", convertLanes(f, load("v128.load", x, 16 * i))));
    lanes.forEach((four, i) => f.store("v128.store", out, four, 16 * i));
  },
  one: (f, out, x) => f.storeLane("v128.store32_lane", out, convertLanes(f, load("v128.load32_zero", x)), 0),
});

/** By the two dtypes. */
const CONVERSIONS: { readonly [key: string]: Conversion } = {
  "bfloat16 float32": toFloat32("bfloat16"),
  "float16 float32": toFloat32("float16"),
  "float32 bfloat16": fromFloat32("bfloat16"),
  "float32 float16": fromFloat32("float16"),
  "int32 float32": ofWords((_, x) => op("f32x4.convert_i32x4_s", x)),
  "float32 int32": ofWords(toInt32),
};

/** Code that converts elements [from, to) as CONVERSIONS[name] does. */
export function convertRun(
  f: FunctionBuilder,
  name: string,
  { out, x, from, to }: { readonly [name in "out" | "x" | "from" | "to"]: Local },
): void {
  const { sixteen, one } = CONVERSIONS[name]!;
  const [xBytes, outBytes] = name.split(" ").map((dtype) => BYTES_PER_ELEMENT[dtype as DType]);
  const [i, end] = [f.local("i32"), f.local("i32", add(from, op("i32.and", sub(to, from), -16)))];
  f.for(i, from, end, 16, () => sixteen(f, at(out, i, outBytes!), at(x, i, xBytes!)));
  f.for(i, end, to, 1, () => one(f, at(out, i, outBytes!), at(x, i, xBytes!)));
}

const COPY: ModuleDefinition = {
  build(m) {
    m.kernel("copy", { out: "i32", x: "i32", bytes: "i32" }, (f, { out, x, bytes, from, to }) =>
      f.copy(at(out, from, bytes), at(x, from, bytes), mul(sub(to, from), bytes)),
    );
    for (const name of Object.keys(CONVERSIONS)) {
      m.kernel(name, { out: "i32", x: "i32" }, (f, { out, x, from, to }) => convertRun(f, name, { out, x, from, to }));
    }
  },
};
