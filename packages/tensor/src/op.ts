import type { Backend, View } from "./backend.ts";
import { type DType, resultDType } from "./dtype.ts";
import { BackendError, DerivativeError, type Shape } from "./errors.ts";
import { type Layout, contiguousLayout, isContiguous, sizeOf } from "./layout.ts";
import type { LinearCrossEntropyAttrs } from "./ops/linearCrossEntropy.ts";
import type { PointwiseName } from "./ops/pointwise.ts";
import { Tensor, isTracked } from "./tensor.ts";

/** What ops take: a tensor, or a number that broadcasts. */
export type Operand = Tensor | number;

/** How attention turns products of queries and keys into scores. */
export interface Scoring {
  readonly scale: number;
  readonly softcap: number | null;
}

/** Keys [B, K, S, D] and values [B, K, S, E] of positions that queries may see. */
export interface KeysAndValues {
  readonly key: Tensor;
  readonly value: Tensor;
}

/** Attributes of the ops that have a composite in ops/ and may have a one-pass kernel. */
export interface FusedAttrs {
  softmax: null;
  logSoftmax: null;
  layerNorm: { readonly eps: number };
  rmsNorm: { readonly eps: number };
  rope: { readonly interleaved: boolean };
  attention: Scoring & { readonly past?: KeysAndValues };
  crossEntropy: { readonly ignoreIndex: number };
  overriddenRows: null;
}
export type FusedName = keyof FusedAttrs;

/** Attributes of the one-pass gradients of fused ops. They have a composite too, and no derivative of their own. */
export interface GradientAttrs {
  pointwiseGrad: { readonly expressions: readonly [string, string] };
  softmaxGrad: null;
  logSoftmaxGrad: null;
  layerNormGrad: { readonly eps: number };
  rmsNormGrad: { readonly eps: number };
  crossEntropyGrad: { readonly ignoreIndex: number };
  attentionGrad: Scoring & {
    readonly wanted: readonly [q: boolean, k: boolean, v: boolean];
    /** So many first keys and values are constants; none when absent. */
    readonly past?: number;
    /** The gradient of q lies as [B, T, H, D]; asked only of a backend with attentionGrad among its `rowsAnywhere`. */
    readonly positionsFirst?: boolean;
  };
}
export type GradientName = keyof GradientAttrs;

/** Every op that a backend may have in one kernel, though what it is made of is no composite of ops. */
export type KernelName = FusedName | GradientName | "scatterRows" | "overrideColumns";

/** Every op with what its gradient needs beside inputs and output. */
export interface OpAttrs extends Record<PointwiseName, null>, FusedAttrs, GradientAttrs {
  sum: { readonly axes: readonly number[] };
  max: { readonly axes: readonly number[] };
  min: { readonly axes: readonly number[] };
  matmul: null;
  takeRows: { readonly ids: Tensor };
  scatterRows: { readonly ids: Tensor };
  overrideColumns: { readonly columns: Int32Array };
  cast: { readonly dtype: DType };
  contiguous: null;
  reshape: { readonly shape: Shape };
  permute: { readonly axes: readonly number[] };
  expand: { readonly shape: Shape };
  slice: {
    readonly axis: number;
    readonly start: number;
    readonly size: number;
    readonly step: number;
  };
  cat: { readonly axis: number };
  linearCrossEntropy: LinearCrossEntropyAttrs;
  checkpoint: { readonly replay: (...inputs: Tensor[]) => Tensor; readonly captured: number };
}
/** Every differentiable op. */
export type OpName = Exclude<keyof OpAttrs, GradientName>;

/** Where a tensor came from: enough to differentiate it, nothing about how. */
export interface Source<N extends OpName = OpName> {
  readonly op: N;
  readonly inputs: readonly Operand[];
  readonly attrs: OpAttrs[N];
}

let recording = true;

/** Runs `f` without provenance: nothing made inside has a source. `f` must be synchronous. */
export const untracked = <T>(f: () => T): T => withRecording(false, f);

/** Runs `f` with provenance, also inside `untracked`: how a gradient rule replays a forward pass. */
export const retracked = <T>(f: () => T): T => withRecording(true, f);

function withRecording<T>(on: boolean, f: () => T): T {
  const before = recording;
  recording = on;
  try {
    return f();
  } finally {
    recording = before;
  }
}

/** True when what these inputs give is recorded. */
export const records = (inputs: readonly Operand[]): boolean => recording && inputs.some(isTracked);

/** The source to record for a result, or null when no gradient can reach it. */
export function provenance<N extends OpName>(op: N, inputs: readonly Operand[], attrs: OpAttrs[N]): Source | null {
  return records(inputs) ? { op, inputs, attrs } : null;
}

/** The one backend of the inputs. Throws BackendError when they live on several. */
export function commonBackend(op: string, inputs: readonly Operand[]): Backend {
  let backend: Backend | null = null;
  for (const x of inputs) {
    if (typeof x === "number") continue;
    if (backend && backend !== x.backend) {
      throw new BackendError(`${op}: tensors must be on one backend, got ${backend.name} and ${x.backend.name}`);
    }
    backend = x.backend;
  }
  if (!backend) throw new BackendError(`${op}: at least one argument must be a tensor, got numbers only`);
  return backend;
}

/** The seam of every op that computes: allocates the result, lets `kernel` fill it, records where it came from. */
export function execute<N extends OpName>(
  op: N,
  inputs: readonly Operand[],
  attrs: OpAttrs[N],
  result: Result,
  kernel: (backend: Backend, out: View) => void,
): Tensor {
  return computed(op, inputs, result, kernel, provenance(op, inputs, attrs));
}

/** What an op gives, and how it lies: row-major where that is absent. */
interface Result {
  readonly shape: Shape;
  readonly dtype: DType;
  readonly lying?: Layout | undefined;
}

function computed(
  op: string,
  inputs: readonly Operand[],
  { shape, dtype, lying: layout = contiguousLayout(shape) }: Result,
  kernel: (backend: Backend, out: View) => void,
  source: Source | null,
): Tensor {
  const backend = commonBackend(op, inputs);
  for (const x of inputs) if (typeof x !== "number") x.view(op);
  const buffer = backend.allocate(dtype, sizeOf(shape));
  try {
    kernel(backend, { buffer, layout });
  } catch (error) {
    backend.free(buffer);
    throw error;
  }
  return Tensor.over(backend, buffer, shape, source, layout);
}

/** The seam of every op that only looks differently at its input. */
export function relayout<N extends OpName>(op: N, x: Tensor, attrs: OpAttrs[N], layout: Layout): Tensor {
  x.view(op);
  return Tensor.viewing(x, layout, provenance(op, [x], attrs));
}

/**
 * Runs the backend's one-pass kernel where it has one, else the composite that defines the op. Inputs that are not contiguous are
 * copied, but for those whose number `asIs` lets through, or where the kernel takes any strides. The kernel's result lies
 * as `lying` says, row-major where that is absent.
 */
export function fused<N extends FusedName>(
  op: N,
  inputs: readonly Tensor[],
  attrs: OpAttrs[N],
  shape: Shape,
  composite: () => Tensor,
  asIs?: (input: number) => boolean,
  lying?: Layout,
): Tensor {
  const kernel = kernelFor(op, inputs, shape);
  if (!kernel) return composite();
  const dtype = resultDType(inputs.map((x) => x.dtype));
  return execute(op, inputs, attrs, { shape, dtype, lying }, (backend, out) => {
    withContiguous(op, inputs, (views) => kernel(out, views, attrs), takesAll(backend, op) ?? asIs);
  });
}

/**
 * Runs the backend's one-pass gradient where it has one, else the composite that defines it. Records nothing: throws DerivativeError
 * where a derivative of the gradient would be wanted.
 */
export function fusedGradient<N extends GradientName>(
  op: N,
  inputs: readonly Tensor[],
  attrs: OpAttrs[N],
  shape: Shape,
  composite: () => Tensor,
  asIs?: (input: number) => boolean,
): Tensor {
  if (records(inputs)) throw new DerivativeError(op);
  const kernel = kernelFor(op, inputs, shape);
  if (!kernel) return composite();
  const dtype = resultDType(inputs.map((x) => x.dtype));
  const run = (backend: Backend, out: View): void =>
    withContiguous(op, inputs, (views) => kernel(out, views, attrs), takesAll(backend, op) ?? asIs);
  return computed(op, inputs, { shape, dtype }, run, null);
}

/** What lets every input through as it is, where the backend's kernel takes any strides. */
const takesAll = ({ strided }: Backend, op: KernelName): (() => boolean) | undefined =>
  strided?.includes(op) ? () => true : undefined;

/** The backend's kernel for an op, where it has one that takes these inputs and a result of that shape. */
export function kernelFor<N extends KernelName>(
  op: N,
  inputs: readonly Tensor[],
  shape: Shape,
): NonNullable<Backend["fused"]>[N] | undefined {
  const backend = commonBackend(op, inputs);
  const kernel = backend.fused?.[op];
  if (!kernel || !backend.fuses) return kernel;
  const out = { dtype: resultDType(inputs.map((x) => x.dtype)), length: sizeOf(shape) };
  return backend.fuses(op, [...inputs.map((x) => x.view(op).buffer), out]) ? kernel : undefined;
}

/**
 * Calls `use` with row-major views of the tensors, those whose number `asIs` lets through as they are; what had to be copied is freed
 * afterwards.
 */
export function withContiguous(
  op: string,
  inputs: readonly Tensor[],
  use: (views: View[]) => void,
  asIs: (input: number) => boolean = () => false,
): void {
  const copies: { backend: Backend; view: View }[] = [];
  try {
    use(
      inputs.map((x, i) => {
        const view = x.view(op);
        if (isContiguous(view.layout) || asIs(i)) return view;
        const copy = {
          buffer: x.backend.allocate(x.dtype, x.size),
          layout: contiguousLayout(x.shape),
        };
        copies.push({ backend: x.backend, view: copy });
        x.backend.copy(copy, view);
        return copy;
      }),
    );
  } finally {
    for (const { backend, view } of copies) backend.free(view.buffer);
  }
}
