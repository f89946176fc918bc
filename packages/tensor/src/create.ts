import type { Backend, Distribution } from "./backend.ts";
import { defaultBackend } from "./backends/open.ts";
import { type DType, type TypedArray, hostArray, isHostArray } from "./dtype.ts";
import { DTypeError, type Shape, ShapeError } from "./errors.ts";
import { toBfloat16, toFloat16 } from "./half.ts";
import { sizeOf } from "./layout.ts";
import { release } from "./scope.ts";
import { Tensor } from "./tensor.ts";

/**
 * A tensor of the given values, copied; row-major. `data` is a list of numbers, or the host array of `dtype`
 * (bfloat16 and float16: raw bits in a Uint16Array). Throws ShapeError when the shape does not hold all values.
 */
export function tensor(
  data: readonly number[] | TypedArray,
  shape: Shape = [data.length],
  dtype: DType = "float32",
  backend: Backend = defaultBackend(),
): Tensor {
  if (sizeOf(shape) !== data.length) throw new ShapeError("tensor", `shape must hold ${data.length} elements`, shape);
  const host = toHostArray(data, dtype);
  const t = empty(shape, dtype, backend);
  backend.write(t.view("tensor").buffer, host);
  return t;
}

/** An int32 tensor. */
export const intTensor = (
  data: readonly number[] | Int32Array,
  shape: Shape = [data.length],
  backend?: Backend,
): Tensor => tensor(data, shape, "int32", backend);

/** Values as the host array of `dtype`: `data` itself where it is one. Throws DTypeError for raw 16-bit floats of another dtype. */
export function toHostArray(data: readonly number[] | TypedArray, dtype: DType): TypedArray {
  if (isHostArray(data, dtype)) return data;
  const bits = dtype === "bfloat16" ? toBfloat16 : dtype === "float16" ? toFloat16 : null;
  if (data instanceof Uint16Array)
    throw new DTypeError("tensor", "raw 16-bit floats need the dtype they are in", dtype);
  const out = hostArray(dtype, data.length);
  if (bits) for (let i = 0; i < out.length; i++) out[i] = bits(data[i]!);
  else out.set(data);
  return out;
}

function empty(shape: Shape, dtype: DType, backend: Backend): Tensor {
  if (!backend.dtypes.includes(dtype))
    throw new DTypeError("tensor", `the ${backend.name} backend holds ${backend.dtypes.join(", ")}`, dtype);
  return Tensor.over(backend, backend.allocate(dtype, sizeOf(shape)), [...shape]);
}

/**
 * A tensor whose elements `fill` writes, little-endian and row-major: straight into the backend's memory where the host can reach
 * it. Nothing stays allocated when `fill` fails.
 */
export async function filledBy(
  fill: (bytes: Uint8Array) => Promise<void>,
  shape: Shape,
  dtype: DType = "float32",
  backend: Backend = defaultBackend(),
): Promise<Tensor> {
  const t = empty(shape, dtype, backend);
  const { buffer } = t.view("filledBy");
  try {
    if (backend.hostBytes) await fill(backend.hostBytes(buffer));
    else {
      const data = hostArray(dtype, buffer.length);
      await fill(new Uint8Array(data.buffer));
      backend.write(buffer, data);
    }
    return t;
  } catch (error) {
    t.dispose();
    throw error;
  }
}

/** A tensor filled with one value. */
export function full(
  shape: Shape,
  value: number,
  dtype: DType = "float32",
  backend: Backend = defaultBackend(),
): Tensor {
  const t = empty(shape, dtype, backend);
  backend.fill(t.view("full"), value);
  return t;
}

export const zeros = (shape: Shape, dtype?: DType, backend?: Backend): Tensor => full(shape, 0, dtype, backend);
export const ones = (shape: Shape, dtype?: DType, backend?: Backend): Tensor => full(shape, 1, dtype, backend);
export const zerosLike = (t: Tensor): Tensor => full(t.shape, 0, t.dtype, t.backend);
export const onesLike = (t: Tensor): Tensor => full(t.shape, 1, t.dtype, t.backend);

/** 0, 1, …, n − 1. */
export const arange = (n: number, dtype: DType = "float32", backend?: Backend): Tensor =>
  tensor(
    Array.from({ length: n }, (_, i) => i),
    [n],
    dtype,
    backend,
  );

const random =
  (distribution: Distribution) =>
  (shape: Shape, seed: number, dtype: DType = "float32", backend: Backend = defaultBackend()): Tensor => {
    const t = empty(shape, dtype, backend);
    backend.random(distribution, t.view("random"), seed);
    return t;
  };

/** Uniform on [0, 1); the same seed gives the same values on every backend. */
export const rand = random("uniform");
/** Standard normal; the same seed gives the same values on every backend, up to rounding. */
export const randn = random("normal");

/** Takes `t` out of every scope: it lives until `dispose()`. */
export function persist(t: Tensor): Tensor {
  release(t);
  return t;
}

/** Makes `t` a leaf that trains: its gradient is collected, and it lives until `dispose()`, whatever scope it was made in. */
export function parameter(t: Tensor): Tensor {
  persist(t);
  t.source = null;
  t.requiresGrad = true;
  return t;
}

/** The same elements without provenance: gradients stop here. */
export const detach = (t: Tensor): Tensor => Tensor.viewing(t, t.layout);

/** Writes the elements of `x` into the buffer of the leaf `target`; shapes agree, the dtype is converted. */
export function assign(target: Tensor, x: Tensor): void {
  if (sizeOf(target.shape) !== x.size || target.shape.some((d, i) => d !== x.shape[i])) {
    throw new ShapeError("assign", "shapes must agree", target.shape, x.shape);
  }
  target.backend.copy(target.view("assign"), x.view("assign"));
  target.written();
}
