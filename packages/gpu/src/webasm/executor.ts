import {
  BackendError,
  type Buffer,
  type DType,
  type TypedArray,
  fromBfloat16,
  fromFloat16,
  sizeOf,
  toBfloat16,
  toFloat16,
} from "@neolog/tensor";
import type { Gpu, GpuJs, GpuKernel } from "../facade.ts";
import { type Executor, type Kernel, type Launch, settingsOf, sourceOf } from "../kernel.ts";
import { positions } from "../positions.ts";

/** Elements of a result, above which gpu.js's float32 division no longer finds every row and column. */
const LARGEST = 2 ** 22;

/** Every dtype as float32 numbers, and room for a power of two of them: gpu.js compiles once for each length of array it sees. */
interface WebAsmBuffer extends Buffer {
  readonly data: Float32Array;
}
const roomFor = (length: number): number => 2 ** Math.ceil(Math.log2(Math.max(4, length)));
const dataOf = (buffer: Buffer): Float32Array => (buffer as WebAsmBuffer).data;

/** gpu.js's WebAssembly mode: what kernels mean, on any machine. It is no fast backend. */
export class WebAsmExecutor implements Executor {
  readonly mode = "webasm";
  readonly info: Executor["info"];
  readonly #gpu: Gpu;
  readonly #lib: GpuJs;
  readonly #kernels = new Map<string, GpuKernel>();
  readonly deviceBytes = { total: 0, waiting: 0 };

  constructor(lib: GpuJs, why: Executor["info"]) {
    this.#lib = lib;
    this.#gpu = new lib.GPU({ mode: "webasm" });
    this.info = { adapter: "gpu.js in WebAssembly", arithmetic: "float32", ...why };
  }

  get compiled(): number {
    return this.#kernels.size;
  }
  bytesOf(_: DType, length: number): number {
    return 4 * length;
  }
  allocate(dtype: DType, length: number): WebAsmBuffer {
    return { dtype, length, data: new Float32Array(roomFor(length)) };
  }
  write(buffer: Buffer, data: TypedArray, at: number): void {
    const [to, widen] = [dataOf(buffer), WIDEN[buffer.dtype]];
    if (widen) for (let i = 0; i < data.length; i++) to[at + i] = widen(data[i]!);
    else to.set(data, at);
  }
  async read(buffer: Buffer, at: number, length: number): Promise<TypedArray> {
    const data = dataOf(buffer).slice(at, at + length);
    if (buffer.dtype === "int32") return Int32Array.from(data);
    const bits = BITS[buffer.dtype];
    return bits ? Uint16Array.from(data, bits) : data;
  }
  destroy(): void {
    void this.#gpu.destroy();
    this.#kernels.clear();
  }
  free(): void {
    // the garbage collector's
  }

  run({ kernel, args, out }: Launch): void {
    const size = sizeOf(out.layout.shape);
    if (size > LARGEST)
      throw new BackendError(
        `gpu (webasm): a result must have at most ${LARGEST} elements, got ${size}; use webgpu or wasm`,
      );
    const call = this.#compiled(kernel);
    call.setOutput([roomFor(size)]);
    const values = args.map((x) => (typeof x === "number" ? x : new this.#lib.Input(dataOf(x), [dataOf(x).length])));
    const result = call(...values);
    const { mode } = call.kernel.constructor;
    if (mode !== this.mode)
      throw new BackendError(`gpu (webasm): gpu.js must run ${kernel.key} in WebAssembly, got ${mode}`);
    const [to, dtype] = [dataOf(out.buffer), out.buffer.dtype];
    const round = ROUND[dtype];
    positions(out.layout, (at, i) => {
      to[at] = round ? round(result[i]!) : result[i]!;
    });
  }

  #compiled(kernel: Kernel): GpuKernel {
    let call = this.#kernels.get(kernel.key);
    if (!call) {
      call = this.#gpu.createKernel(sourceOf(kernel), settingsOf(kernel));
      this.#kernels.set(kernel.key, call);
    }
    return call;
  }
}

type Conversions = { readonly [D in DType]?: (x: number) => number };
const WIDEN: Conversions = { bfloat16: fromBfloat16, float16: fromFloat16 };
const BITS: Conversions = { bfloat16: toBfloat16, float16: toFloat16 };
const ROUND: Conversions = {
  bfloat16: (x) => fromBfloat16(toBfloat16(x)),
  float16: (x) => fromFloat16(toFloat16(x)),
};
