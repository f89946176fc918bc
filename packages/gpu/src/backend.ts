import {
  type Backend,
  BackendError,
  type Buffer,
  type DType,
  type Distribution,
  type Reduction,
  type TypedArray,
  type View,
  contiguousLayout,
  isContiguous,
  normalAt,
  sizeOf,
  uniformAt,
} from "@neolog/tensor";
import type { Executor } from "./kernel.ts";
import { matmul } from "./kernels/matmul.ts";
import { pointwise } from "./kernels/pointwise.ts";
import { reduce } from "./kernels/reduce.ts";
import { rope } from "./kernels/rope.ts";
import { addRows, overriddenRows, overrideColumns, scatterRows, takeRows } from "./kernels/rows.ts";
import { hasRows, packedFused } from "./webgl2/fused.ts";
import { adamwCall } from "./wgsl/adamw.ts";
import { tunedFused } from "./wgsl/fused.ts";
import { lookAtCall } from "./wgsl/lookAtLogits.ts";
import { matmulCall } from "./wgsl/matmulCall.ts";
import type { TunedExecutor } from "./wgsl/tunedKernel.ts";

/** Whole numbers up to this one are held exactly: int32 lies on the device as float32. */
const LARGEST_INTEGER = 2 ** 24;

const hasTuned = (executor: Executor): executor is Executor & TunedExecutor =>
  executor.runTuned !== undefined && executor.style !== undefined;

/** Fused ops whose kernels are gpu.js's own, which take arrays in several buffers. */
const PLAIN: ReadonlySet<string> = new Set(["rope", "overriddenRows", "overrideColumns", "scatterRows"]);

/** The executor for kernels that no plain one stands in for: their arrays must lie in one buffer each. */
const inOnePiece = (executor: Executor & TunedExecutor): TunedExecutor => ({
  style: executor.style,
  allocate: (dtype, length) => executor.allocate(dtype, length),
  free: (buffer) => executor.free(buffer),
  runTuned: (call) => {
    if (executor.runTuned(call)) return true;
    throw new BackendError(
      `gpu: ${call.kernel.key.split(":")[0]} must have arrays of at most ${executor.info["maxBindingBytes"]} bytes, got a longer one; use smaller batches`,
    );
  },
});

/** Kernels that work in place; products give up where an array lies in several buffers. */
const updatesOf = (executor: TunedExecutor, whole: TunedExecutor): NonNullable<Backend["updates"]> => ({
  adamw: (arrays, numbers) => void whole.runTuned(adamwCall(arrays, numbers)),
  lookAtLogits: (arrays, numbers) => void whole.runTuned(lookAtCall(arrays, numbers, whole.style)),
  addMatmul: (out, a, b, factor) => factor !== null && multiplied(executor, out, a, b, factor),
});

/** True where a tuned kernel multiplies: not for many batch axes, nor where an operand lies in several buffers. */
function multiplied(executor: TunedExecutor, out: View, a: View, b: View, factor?: View): boolean {
  const [x, y] = [a, b].map((view) => executor.pieceOf?.(view) ?? view) as [View, View];
  const call = matmulCall(out, x, y, executor.style, factor);
  return call !== null && executor.runTuned(call);
}

/** Kernels built through gpu.js. Ops return at once; only `read` waits. */
export class GpuBackend implements Backend {
  readonly name = "gpu";
  readonly info: Backend["info"];
  readonly exact = false;
  readonly dtypes: readonly DType[] = ["float32", "int32", "bfloat16", "float16"];
  readonly #executor: Executor;
  readonly #tuned: TunedExecutor | null;
  /** int32 buffers as the host wrote them, while no kernel has written into them. */
  readonly #known = new WeakMap<Buffer, Int32Array>();
  readonly fused: NonNullable<Backend["fused"]>;
  readonly updates: NonNullable<Backend["updates"]>;
  readonly strided: NonNullable<Backend["strided"]>;
  #live = 0;
  #bytes = 0;
  #peak = 0;

  /** `tuned` false runs gpu.js's own kernels everywhere. */
  constructor(executor: Executor, tuned = true) {
    this.#executor = executor;
    const tunes = tuned && hasTuned(executor) ? executor : null;
    this.#tuned = tunes;
    const whole = tunes && inOnePiece(tunes);
    const packed = tuned && hasRows(executor) ? packedFused(executor) : null;
    this.fused = {
      rope: (out, inputs, attrs) => {
        if (this.#isWritten(out)) rope(executor, out, inputs, attrs);
      },
      overriddenRows: (out, inputs) => {
        if (this.#isWritten(out)) overriddenRows(executor, out, inputs);
      },
      overrideColumns: (out, [x, values], { columns }) => {
        if (this.#isWritten(out)) overrideColumns(executor, out, x!, values!, columns);
      },
      scatterRows: (out, [rows], { ids }) => {
        const view = ids.view("scatterRows");
        if (this.#isWritten(out)) scatterRows(executor, out, rows!, view, this.#idsOf(view));
      },
      ...(whole ? tunedFused(whole) : packed?.fused),
    };
    this.strided = ["rope", ...(whole ? (["attention", "attentionGrad"] as const) : (packed?.strided ?? []))];
    this.updates = tunes && whole ? updatesOf(tunes, whole) : (packed?.updates ?? {});
    this.info = { name: "gpu", mode: executor.mode, ...executor.info };
  }

  get live(): number {
    return this.#live;
  }
  get bytes(): Backend["bytes"] {
    return { live: this.#bytes, peak: this.#peak };
  }
  /** Bytes on the device, those that wait for reuse included. */
  get deviceBytes(): { readonly total: number; readonly waiting: number } {
    return this.#executor.deviceBytes;
  }
  /** Kernels started so far; 0 in modes that do not count them. */
  get dispatches(): number {
    return this.#executor.dispatches ?? 0;
  }
  /** Kernels that are compiled. */
  get compiled(): number {
    return this.#executor.compiled;
  }
  /** Gives the device back; every later call throws DeviceLostError. */
  destroy(): void {
    this.#executor.destroy();
  }
  allocate(dtype: DType, length: number): Buffer {
    const buffer = this.#executor.allocate(dtype, length);
    this.#live++;
    this.#bytes += this.#executor.bytesOf(dtype, length);
    this.#peak = Math.max(this.#peak, this.#bytes);
    return buffer;
  }
  free(buffer: Buffer): void {
    this.#executor.free(buffer);
    this.#live--;
    this.#bytes -= this.#executor.bytesOf(buffer.dtype, buffer.length);
  }
  /** Throws BackendError for an integer beyond ±2²⁴. */
  write(buffer: Buffer, data: TypedArray, at = 0): void {
    if (data.length === 0) return;
    if (buffer.dtype === "int32") {
      const outside = (data as Int32Array).find((x) => Math.abs(x) > LARGEST_INTEGER);
      if (outside !== undefined)
        throw new BackendError(
          `gpu: int32 must lie within ±${LARGEST_INTEGER}, got ${outside}; keep it on the wasm backend`,
        );
      if (at === 0 && data.length === buffer.length) this.#known.set(buffer, Int32Array.from(data));
      else this.#known.delete(buffer);
    }
    this.#executor.write(buffer, data, at);
  }
  read(buffer: Buffer, at: number, length: number): Promise<TypedArray> {
    return this.#executor.read(buffer, at, length);
  }

  async prepare(run: () => void): Promise<void> {
    await this.#executor.prepare?.(run);
  }

  fuses(op: string, arrays: readonly Buffer[]): boolean {
    const { pieces } = this.#executor;
    if (!pieces) return true;
    const counts = arrays.map(({ dtype, length }) => pieces.of(dtype, length));
    if (!PLAIN.has(op)) return counts.every((n) => n === 1);
    // beside its arrays a kernel may bind an index of rows
    return counts.reduce((sum, n) => sum + n, 1) <= pieces.most;
  }
  /** Of int32 alone: the others are large, and computed. */
  hostCopy(buffer: Buffer, at: number, length: number): TypedArray | null {
    return this.#known.get(buffer)?.slice(at, at + length) ?? null;
  }

  pointwise(expression: string, out: View, inputs: readonly (View | number)[]): void {
    if (this.#isWritten(out)) pointwise(this.#executor, expression, out, inputs);
  }
  reduce(reduction: Reduction, out: View, x: View): void {
    if (!this.#isWritten(out)) return;
    if (x.layout.shape[1] === 0) this.fill(out, reduction === "sum" ? 0 : reduction === "max" ? -Infinity : Infinity);
    else reduce(this.#executor, reduction, out, x);
  }
  matmul(out: View, a: View, b: View): void {
    if (!this.#isWritten(out)) return;
    if (a.layout.shape.at(-1) === 0) this.fill(out, 0);
    else if (!this.#tunedMatmul(out, a, b)) matmul(this.#executor, out, a, b);
  }
  takeRows(out: View, table: View, ids: View): void {
    if (this.#isWritten(out)) takeRows(this.#executor, out, table, ids);
  }
  addRows(out: View, rows: View, ids: View): void {
    if (sizeOf(rows.layout.shape) > 0 && this.#isWritten(out))
      addRows(this.#executor, out, rows, ids, this.#idsOf(ids));
  }
  copy(out: View, x: View): void {
    this.pointwise("a", out, [x]);
  }
  fill(out: View, value: number): void {
    this.pointwise("a", out, [value]);
  }
  /** Drawn on the host: the same numbers as on every other backend. */
  random(distribution: Distribution, out: View, seed: number): void {
    const size = sizeOf(out.layout.shape);
    if (size === 0) return;
    const at = distribution === "uniform" ? uniformAt : normalAt;
    const data = Float32Array.from({ length: size }, (_, i) => at(seed, i));
    const whole = isContiguous(out.layout) && out.buffer.dtype === "float32";
    if (whole) return this.#executor.write(out.buffer, data, out.layout.offset);
    const buffer = this.#executor.allocate("float32", size);
    this.#executor.write(buffer, data, 0);
    this.copy(out, { buffer, layout: contiguousLayout(out.layout.shape) });
    this.#executor.free(buffer);
  }

  /** False where the plain kernel must do it: in modes without tuned ones, in place, into 16 bits, for many batch axes, for split arrays. */
  #tunedMatmul(out: View, a: View, b: View): boolean {
    const { buffer } = out;
    if (!this.#tuned || buffer.dtype !== "float32" || a.buffer === buffer || b.buffer === buffer) return false;
    return multiplied(this.#tuned, out, a, b);
  }
  /** False for a view of nothing. What a kernel writes into, the host no longer knows. */
  #isWritten({ buffer, layout }: View): boolean {
    this.#known.delete(buffer);
    return sizeOf(layout.shape) > 0;
  }
  #idsOf({ buffer, layout }: View): Int32Array | null {
    return this.#known.get(buffer)?.subarray(layout.offset, layout.offset + sizeOf(layout.shape)) ?? null;
  }
}
