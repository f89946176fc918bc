import type { Backend, Buffer, Distribution, Reduction, View } from "../../backend.ts";
import type { DType, TypedArray } from "../../dtype.ts";
import { BackendError } from "../../errors.ts";
import * as plain from "../cpu/index.ts";
import { Engine } from "./engine.ts";
import { inFirstMemory } from "./foreign.ts";
import { detectFeatures, hasSimd, setV8Flags } from "./features.ts";
import type { MemoryReport, Placement, WasmBuffer } from "./heap.ts";
import { describeBackend } from "./info.ts";
import { copy } from "./kernels/copy.ts";
import { ROWS_ANYWHERE, fusedKernels } from "./kernels/fused.ts";
import { addMatmul, matmul } from "./kernels/matmul.ts";
import { pointwise } from "./kernels/pointwise.ts";
import { reduce } from "./kernels/reduce.ts";
import { addRows, takeRows } from "./kernels/rows.ts";
import { MAX_THREADS } from "./layoutOfMemory.ts";
import { type WasmOptions, checkOptions } from "./options.ts";
import { canShareMemory, coreCount } from "./platform.ts";

/**
 * SIMD WebAssembly on all cores. Kernels are generated from TypeScript when they are first needed; the little that has none
 * (integer arithmetic, conversions that are rare) runs as the cpu backend's loops on the same memory.
 */
export class WasmBackend implements Backend {
  readonly name = "wasm";
  readonly exact = true;
  readonly dtypes: readonly DType[] = ["float32", "int32", "bfloat16", "float16"];
  readonly fused: NonNullable<Backend["fused"]>;
  readonly rowsAnywhere = ROWS_ANYWHERE;
  readonly updates: NonNullable<Backend["updates"]> = {
    addMatmul: (out, a, b, factor) => factor === null && addMatmul(this.#engine, out, a, b),
  };
  readonly #engine: Engine;
  readonly #asked: number | null;
  readonly #flags: readonly string[];

  /** `placement` is for tests. Throws BackendError where WebAssembly has no SIMD, or for options that cannot be. */
  constructor(options: WasmOptions = {}, placement?: Placement) {
    checkOptions(options);
    if (!hasSimd()) throw new BackendError("wasm: WebAssembly with SIMD and shared memory must be here; use cpu");
    const { threads, maxBytes = Infinity, v8Flags = false } = options;
    this.#asked = threads ?? null;
    this.#flags = v8Flags ? setV8Flags() : [];
    const all = canShareMemory() ? (threads ?? Math.min(coreCount(), MAX_THREADS)) : 1;
    this.#engine = new Engine(detectFeatures(), all, maxBytes, placement);
    this.fused = fusedKernels(this.#engine);
  }

  get info(): Readonly<Record<string, string | number | boolean>> {
    const { features, pool, tile } = this.#engine;
    const [asked, flags, canShare] = [this.#asked, this.#flags, canShareMemory()];
    return describeBackend({ features, asked, alive: pool.alive, canShare, flags, tile });
  }
  get live(): number {
    return this.#engine.heap.live;
  }
  get bytes(): { readonly live: number; readonly peak: number } {
    return this.#engine.heap.bytes;
  }
  /** Bytes in use, at most so far, and reserved; by dtype. */
  memory(): MemoryReport {
    return this.#engine.heap.report();
  }
  /** Starts the threads and waits for them; without it they start with the first large operation. */
  ready(): Promise<void> {
    return this.#engine.pool.ready();
  }
  /** Ends the threads. What is computed afterwards runs on the calling one. */
  close(): Promise<void> {
    return this.#engine.pool.close();
  }

  allocate(dtype: DType, length: number): Buffer {
    return this.#engine.heap.allocate(dtype, length);
  }
  write(buffer: Buffer, data: TypedArray, at = 0): void {
    (buffer as WasmBuffer).data.set(data, at);
  }
  readSync(buffer: Buffer, at: number, length: number): TypedArray {
    return (buffer as WasmBuffer).data.slice(at, at + length);
  }
  async read(buffer: Buffer, at: number, length: number): Promise<TypedArray> {
    return this.readSync(buffer, at, length);
  }
  hostBytes(buffer: Buffer): Uint8Array {
    const { buffer: memory, byteOffset, byteLength } = (buffer as WasmBuffer).data;
    return new Uint8Array(memory, byteOffset, byteLength);
  }
  free(buffer: Buffer): void {
    this.#engine.heap.free(buffer as WasmBuffer);
  }

  pointwise(expression: string, out: View, inputs: readonly (View | number)[]): void {
    inFirstMemory(this.#engine, out, inputs, (y, xs) => {
      if (!pointwise(this.#engine, expression, y, xs)) plain.pointwise(expression, y, xs);
    });
  }
  reduce(reduction: Reduction, out: View, x: View): void {
    inFirstMemory(this.#engine, out, [x], (y, [there]) => {
      if (!reduce(this.#engine, reduction, y, there as View)) plain.reduce(reduction, y, there as View);
    });
  }
  matmul(out: View, a: View, b: View): void {
    if (!matmul(this.#engine, out, a, b)) plain.matmul(out, a, b);
  }
  takeRows(out: View, table: View, ids: View): void {
    if (!takeRows(this.#engine, out, table, ids)) plain.takeRows(out, table, ids);
  }
  addRows(out: View, rows: View, ids: View): void {
    if (!addRows(this.#engine, out, rows, ids)) plain.addRows(out, rows, ids);
  }
  copy(out: View, x: View): void {
    if (!copy(this.#engine, out, x)) plain.copy(out, x);
  }
  fill(out: View, value: number): void {
    plain.fill(out, value);
  }
  random(distribution: Distribution, out: View, seed: number): void {
    plain.random(distribution, out, seed);
  }
}
