import type { Backend, View } from "../../../backend.ts";
import type { DType } from "../../../dtype.ts";
import { contiguousLayout, sizeOf } from "../../../layout.ts";
import type { FusedName, GradientName, OpAttrs } from "../../../op.ts";
import * as plain from "../../cpu/index.ts";
import { type Engine, memoryOf } from "../engine.ts";
import type { WasmBuffer } from "../heap.ts";
import { attention } from "./attention.ts";
import { attentionGrad } from "./attentionGrad.ts";
import { copy } from "./copy.ts";
import { crossEntropy, crossEntropyGrad } from "./loss.ts";
import { layerNorm, rmsNorm } from "./norm.ts";
import { layerNormGrad, rmsNormGrad } from "./normGrad.ts";
import { pointwiseGrad } from "./pointwiseGrad.ts";
import { rope } from "./rope.ts";
import { logSoftmax, logSoftmaxGrad, softmax, softmaxGrad } from "./softmax.ts";

type FusedKernels = NonNullable<Backend["fused"]>;
type PlainKernel = (out: View, inputs: readonly View[], attrs: unknown) => void;
/** Fills `out`, or returns false where it cannot. */
type Kernel<A> = (engine: Engine, out: View, inputs: readonly View[], attrs: A) => boolean | void;

/** Kernels of float32 in the first memory, and the numbers of the operands that they take as int32. */
const SIMD: {
  readonly [N in FusedName | GradientName]?: readonly [kernel: Kernel<OpAttrs[N]>, ...integers: number[]];
} = {
  softmax: [softmax],
  softmaxGrad: [softmaxGrad],
  logSoftmax: [logSoftmax],
  logSoftmaxGrad: [logSoftmaxGrad],
  layerNorm: [layerNorm],
  layerNormGrad: [layerNormGrad],
  rmsNorm: [rmsNorm],
  rmsNormGrad: [rmsNormGrad],
  pointwiseGrad: [pointwiseGrad],
  rope: [rope],
  attention: [attention, 3],
  attentionGrad: [attentionGrad, 3],
  crossEntropy: [crossEntropy, 1],
  crossEntropyGrad: [crossEntropyGrad, 1],
};

/** Kernels that read rows of q and g, and write the result's, wherever strides put them. */
export const ROWS_ANYWHERE: readonly (FusedName | GradientName)[] = ["attention", "attentionGrad"];

/** The one-pass kernels: SIMD, else the cpu backend's. */
export function fusedKernels(engine: Engine): FusedKernels {
  const names = new Set([...Object.keys(SIMD), ...Object.keys(plain.fused)]) as Set<FusedName | GradientName>;
  const kernels = Array.from(names, (name) => {
    const slow = plain.fused[name] as PlainKernel | undefined;
    const [fast, ...integers] = (SIMD[name] ?? []) as [Kernel<unknown>?, ...number[]];
    const kernel: PlainKernel = (out, inputs, attrs) => {
      const done = fast && asFloat32(engine, out, inputs, integers, (y, xs) => fast(engine, y, xs, attrs) !== false);
      if (!done) slow!(out, inputs, attrs);
    };
    return [name, kernel];
  });
  return Object.fromEntries(kernels) as FusedKernels;
}

/** Calls `use` with all views in the first memory, float32 or, for the inputs numbered in `integers`, int32: copies where they are not. */
function asFloat32(
  engine: Engine,
  out: View,
  inputs: readonly View[],
  integers: readonly number[],
  use: (out: View, inputs: readonly View[]) => boolean,
): boolean {
  const copies: WasmBuffer[] = [];
  const local = (dtype: DType, x: View): View => {
    if (x.buffer.dtype === dtype && memoryOf(x) === 0) return x;
    const { shape } = x.layout;
    const buffer = engine.heap.allocateIn(0, dtype, sizeOf(shape));
    copies.push(buffer);
    return { buffer, layout: contiguousLayout(shape) };
  };
  const convert = (to: View, from: View): void => {
    if (to !== from && !copy(engine, to, from)) plain.copy(to, from);
  };
  try {
    const y = local("float32", out);
    const xs = inputs.map((x, i) => {
      const there = local(integers.includes(i) ? "int32" : "float32", x);
      convert(there, x);
      return there;
    });
    const done = use(y, xs);
    if (done) convert(out, y);
    return done;
  } finally {
    for (const buffer of copies) engine.heap.free(buffer);
  }
}
