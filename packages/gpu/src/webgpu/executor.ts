import {
  BackendError,
  BYTES_PER_ELEMENT,
  type Buffer,
  type DType,
  type TypedArray,
  type View,
  collapse,
  contiguousLayout,
  isContiguous,
  isStorageDType,
  sizeOf,
} from "@neolog/tensor";
import { DeviceError, DeviceLostError } from "../errors.ts";
import type { GpuJs } from "../facade.ts";
import { type Executor, type Kernel, type Launch, array, int } from "../kernel.ts";
import { COPY } from "../kernels/pointwise.ts";
import { groupsOf, moduleOfTuned, writeParams } from "../wgsl/compile.ts";
import type { KernelStyle, TunedCall } from "../wgsl/tunedKernel.ts";
import { type Compiled, type Module, Pipelines } from "./pipelines.ts";
import { Pool, type Slab } from "./pool.ts";
import { Recorder } from "./recorder.ts";
import { type Placement, Translator } from "./translate.ts";

/** Elements in the slabs, as many as one binding may have in each but the last. */
interface DeviceBuffer extends Buffer {
  slabs: Slab[];
}

export interface WebGpuSettings {
  readonly device: GPUDevice;
  readonly info: Executor["info"];
  /** No buffer is larger: a longer array lies in several. */
  readonly maxBindingBytes: number;
  /** Dispatches after which the recorder submits by itself. */
  readonly maxPending: number;
  /** Bytes of freed buffers that are kept for reuse. */
  readonly poolBytes: number;
  readonly style: KernelStyle;
}

const MAX_GROUPS = 65535;
const WORKGROUP = 64;
/** MAP_READ | COPY_DST, and MapMode.READ */
const [STAGING, READ] = [0x0001 | 0x0008, 0x0001];

/** WebGPU: gpu.js translates, the pipelines and the recording of calls are ours, so that ops return at once. */
export class WebGpuExecutor implements Executor {
  readonly mode = "webgpu";
  readonly info: Executor["info"];
  readonly style: KernelStyle;
  readonly pieces: NonNullable<Executor["pieces"]>;
  readonly #device: GPUDevice;
  readonly #lib: GpuJs;
  readonly #translator: Translator;
  readonly #pool: Pool;
  readonly #recorder: Recorder;
  readonly #partWords: number;
  readonly #pipelines: Pipelines;
  #failure: BackendError | null = null;

  constructor(lib: GpuJs, { device, info, maxBindingBytes, maxPending, poolBytes, style }: WebGpuSettings) {
    this.info = info;
    this.style = style;
    this.#device = device;
    this.#lib = lib;
    this.#translator = new Translator(lib);
    this.#pool = new Pool(device, poolBytes);
    this.#recorder = new Recorder(device, maxPending);
    this.#pipelines = new Pipelines(device);
    this.#partWords = Math.floor(maxBindingBytes / 1024) * 256;
    this.pieces = {
      of: (dtype, length) => Math.max(1, Math.ceil(length / this.#partOf(dtype))),
      most: device.limits.maxStorageBuffersPerShaderStage,
    };
    void device.lost.then(({ message, reason }) => {
      this.#failure = new DeviceLostError(message || reason);
    });
    device.onuncapturederror = ({ error }) => {
      this.#failure ??= new DeviceError(error.message);
    };
  }

  /** Bytes on the device: in use, and waiting for reuse. */
  get deviceBytes(): Pool["bytes"] {
    return this.#pool.bytes;
  }
  get dispatches(): number {
    return this.#recorder.dispatches;
  }
  destroy(): void {
    this.#failure ??= new DeviceLostError("destroyed by its owner");
    this.#device.destroy();
  }
  get compiled(): number {
    return this.#pipelines.size;
  }
  async prepare(run: () => void): Promise<void> {
    this.#check();
    await this.#pipelines.compileAhead(run);
    this.#check();
  }
  bytesOf(dtype: DType, length: number): number {
    return length * BYTES_PER_ELEMENT[dtype];
  }

  allocate(dtype: DType, length: number): DeviceBuffer {
    this.#check();
    const slabs: Slab[] = [];
    const most = this.#partOf(dtype);
    for (let at = 0; at < Math.max(1, length); at += most)
      slabs.push(this.#pool.take(this.bytesOf(dtype, Math.min(most, length - at))));
    return { dtype, length, slabs };
  }
  free(buffer: Buffer): void {
    for (const slab of slabsOf(buffer)) this.#pool.give(slab, slab.epoch === this.#recorder.epoch);
  }

  write(buffer: Buffer, data: TypedArray, at: number): void {
    this.#check();
    if (at === 0 && data.length === buffer.length) this.#renew(buffer as DeviceBuffer);
    const slabs = slabsOf(buffer);
    if (slabs.some(({ epoch }) => epoch === this.#recorder.epoch)) this.#recorder.submit();
    const words = buffer.dtype === "int32" ? Float32Array.from(data) : data;
    const bytes = BYTES_PER_ELEMENT[buffer.dtype];
    if ((at * bytes) % 4 !== 0)
      throw new BackendError(`gpu: halves must be written from an even element on, got ${at}`);
    const most = this.#partOf(buffer.dtype);
    for (let done = 0; done < words.length;) {
      const part = Math.floor((at + done) / most);
      const from = at + done - part * most;
      const count = Math.min(words.length - done, most - from);
      this.#device.queue.writeBuffer(slabs[part]!.buffer, from * bytes, ...padded(words.subarray(done, done + count)));
      done += count;
    }
  }

  /** Other memory for what recorded commands name: they keep the old contents, and need not be submitted before new ones are written. */
  #renew(buffer: DeviceBuffer): void {
    const { epoch } = this.#recorder;
    buffer.slabs = buffer.slabs.map((slab) => {
      if (slab.epoch !== epoch) return slab;
      const other = this.#pool.take(slab.bytes, epoch);
      this.#pool.give(slab, true);
      return other;
    });
  }

  async read(buffer: Buffer, at: number, length: number): Promise<TypedArray> {
    this.#check();
    const bytes = BYTES_PER_ELEMENT[buffer.dtype];
    const first = Math.floor((at * bytes) / 4) * 4;
    const size = Math.ceil(((at + length) * bytes - first) / 4) * 4;
    if (size === 0) return typed(buffer.dtype, new ArrayBuffer(0));
    const staging = this.#device.createBuffer({ size, usage: STAGING });
    try {
      const partBytes = this.#partWords * 4;
      for (let done = 0; done < size;) {
        const part = Math.floor((first + done) / partBytes);
        const from = first + done - part * partBytes;
        const count = Math.min(size - done, partBytes - from);
        this.#recorder.copy(slabsOf(buffer)[part]!.buffer, from, staging, done, count);
        done += count;
      }
      this.#recorder.submit();
      await staging.mapAsync(READ).catch((error: unknown) => {
        throw this.#failure ?? new DeviceLostError(String(error));
      });
      this.#check();
      const start = at * bytes - first;
      return typed(buffer.dtype, staging.getMappedRange().slice(start, start + length * bytes));
    } finally {
      staging.destroy();
    }
  }

  run({ kernel, args, out }: Launch): void {
    this.#check();
    const { buffer, layout } = out;
    const shared = args.some((x) => x === buffer);
    const whole = isContiguous(layout) && layout.offset === 0 && sizeOf(layout.shape) === buffer.length;
    if (isStorageDType(buffer.dtype)) return this.#throughFloats({ kernel, args, out }, whole);
    if (!shared) return this.#dispatch(kernel, args, out);
    const result = this.allocate(buffer.dtype, sizeOf(layout.shape));
    this.#dispatch(kernel, args, { buffer: result, layout: contiguousLayout(layout.shape) });
    if (whole && !this.#pipelines.collecting) {
      const device = buffer as DeviceBuffer;
      [device.slabs, result.slabs] = [result.slabs, device.slabs];
    } else if (!whole) this.#dispatch(COPY, [result, 0], out);
    this.free(result);
  }

  pieceOf(view: View): View {
    const { buffer, layout } = view;
    const slabs = slabsOf(buffer);
    if (slabs.length === 1) return view;
    const { shape, strides, offset } = layout;
    const most = this.#partOf(buffer.dtype);
    const part = Math.floor(offset / most);
    const last = shape.reduce((at, d, axis) => at + (d - 1) * strides[axis]!, offset);
    if (sizeOf(shape) === 0 || Math.floor(last / most) !== part) return view;
    const length = Math.min(most, buffer.length - part * most);
    const piece: DeviceBuffer = { dtype: buffer.dtype, length, slabs: [slabs[part]!] };
    return { buffer: piece, layout: { shape, strides, offset: offset - part * most } };
  }
  runTuned(call: TunedCall): boolean {
    this.#check();
    const all = [...call.arrays, call.out];
    if (all.some((buffer) => slabsOf(buffer).length > 1)) return false;
    const { kernel } = call;
    const compiled = this.#pipelines.of(`tuned ${kernel.key}`, () => moduleOfTuned(this.#lib, kernel));
    if (!compiled) return true;
    const { pipeline, layout, params } = compiled;
    const slabs = all.map((buffer) => slabsOf(buffer)[0]!);
    this.#recorder.record({
      pipeline,
      layout,
      buffers: slabs.map(({ buffer }) => buffer),
      groups: groupsOf(call),
      length: params.byteLength,
      fill: (view) => writeParams(params, call, view, 0),
    });
    for (const slab of slabs) slab.epoch = this.#recorder.epoch;
    return true;
  }

  /** 16-bit results: as float32 first, then two to a word. Where the view is a part of its buffer, all of that is unpacked and packed again. */
  #throughFloats({ kernel, args, out }: Launch, whole: boolean): void {
    const { buffer, layout } = out;
    const result = this.allocate("float32", sizeOf(layout.shape));
    this.#dispatch(kernel, args, { buffer: result, layout: contiguousLayout(layout.shape) });
    let all = result;
    if (!whole) {
      all = this.allocate("float32", buffer.length);
      this.#dispatch(COPY, [buffer, 0], { buffer: all, layout: contiguousLayout([buffer.length]) });
      this.#dispatch(COPY, [result, 0], { buffer: all, layout });
      this.free(result);
    }
    const words = { buffer, layout: contiguousLayout([Math.ceil(buffer.length / 2)]) };
    this.#dispatch(PACK[buffer.dtype as keyof typeof PACK], [all, buffer.length], words);
    this.free(all);
  }

  #dispatch(kernel: Kernel, args: Launch["args"], out: View): void {
    const [placement, places] = placed(out);
    const arrays = args.filter((x) => typeof x !== "number") as DeviceBuffer[];
    const all = [...arrays, out.buffer as DeviceBuffer];
    const compiled = this.#compiled(kernel, all, placement);
    if (!compiled) return;
    const { pipeline, layout, params } = compiled;
    const size = sizeOf(out.layout.shape);
    const numbers = args.filter((x) => typeof x === "number");
    const groups = kernel.wgsl ? kernel.wgsl.groups(size, numbers) : folded(Math.ceil(size / WORKGROUP));
    const values = [...args, ...places] as (number | Buffer)[];
    this.#recorder.record({
      pipeline,
      layout,
      buffers: all.flatMap(({ slabs }) => slabs.map(({ buffer }) => buffer)),
      groups,
      length: params.byteLength,
      fill: (view) => {
        view.setUint32(0, size, true);
        view.setUint32(4, 1, true);
        view.setUint32(8, 1, true);
        view.setUint32(12, groups[0] * WORKGROUP, true);
        for (const { index, type, offset } of params.scalarArgs) {
          if (type === "Integer") view.setInt32(offset, values[index] as number, true);
          else view.setFloat32(offset, values[index] as number, true);
        }
      },
    });
    for (const { slabs } of all) for (const slab of slabs) slab.epoch = this.#recorder.epoch;
  }

  #compiled(kernel: Kernel, buffers: readonly DeviceBuffer[], placement: Placement): Compiled | null {
    const stored = buffers.map(({ dtype, slabs }) => ({ dtype, parts: slabs.length }));
    const key = `${kernel.key}|${placement}|${stored.map(({ dtype, parts }) => `${dtype} ${parts}`).join(",")}`;
    return this.#pipelines.of(key, () => this.#moduleOf(kernel, stored, placement));
  }

  #moduleOf(kernel: Kernel, stored: readonly { dtype: DType; parts: number }[], placement: Placement): Module {
    const most = this.#device.limits.maxStorageBuffersPerShaderStage;
    const bound = stored.reduce((n, { parts }) => n + parts, 0);
    if (bound > most)
      throw new BackendError(
        `gpu: ${kernel.key.split(" ")[0]} must bind at most ${most} buffers of ${this.#partWords * 4} bytes, got ${bound}; keep the table in a 16-bit dtype or on the wasm backend`,
      );
    const out = stored.at(-1)!;
    const arrays = stored.slice(0, -1);
    const { code, layout } = this.#translator.translate(kernel, arrays, out, placement, this.#partWords);
    const read = arrays.flatMap(({ parts }) => Array.from({ length: parts }, () => "read-only-storage" as const));
    const written = Array.from({ length: out.parts }, () => "storage" as const);
    return { label: kernel.key, code, bindings: ["uniform", ...read, ...written], params: layout };
  }

  /** Elements in one slab at most. */
  #partOf(dtype: DType): number {
    return (this.#partWords * 4) / BYTES_PER_ELEMENT[dtype];
  }
  #check(): void {
    if (this.#failure) throw this.#failure;
  }
}

const slabsOf = (buffer: Buffer): Slab[] => (buffer as DeviceBuffer).slabs;

/** Workgroups along x, then y, within the limit of either. */
const folded = (groups: number): readonly [number, number, number] =>
  groups <= MAX_GROUPS ? [groups, 1, 1] : [MAX_GROUPS, Math.ceil(groups / MAX_GROUPS), 1];

/** How a result is placed, and the numbers that say so. */
function placed({ layout }: View): readonly [Placement, readonly number[]] {
  const { shape, offset } = layout;
  if (isContiguous(layout)) return offset === 0 ? ["whole", []] : ["offset", [offset]];
  const nest = collapse(shape, [contiguousLayout(shape), layout]);
  const sizes = [...nest.sizes, nest.n];
  return [sizes.length, [offset, ...nest.strides[1]!, nest.steps[1]!, ...sizes.slice(1)]];
}

/** The bytes of an array and how many, a multiple of four. */
function padded(data: TypedArray): [ArrayBufferLike, number, number] {
  if (data.byteLength % 4 === 0) return [data.buffer, data.byteOffset, data.byteLength];
  const copy = new Uint8Array(data.byteLength + 2);
  copy.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  return [copy.buffer, 0, copy.byteLength];
}

function typed(dtype: DType, bytes: ArrayBuffer): TypedArray {
  if (isStorageDType(dtype)) return new Uint16Array(bytes);
  const floats = new Float32Array(bytes);
  return dtype === "int32" ? Int32Array.from(floats) : floats;
}

const packing = (name: string): Kernel => ({
  key: `pack ${name}`,
  parameters: [array("x"), int("length")],
  body: "return x[2 * this.thread.x];",
  wgsl: {
    workgroup: [WORKGROUP, 1, 1],
    groups: (size) => folded(Math.ceil(size / WORKGROUP)),
    body: `let i = gid.x + gid.y * params.dispatchWidth;
  if (i >= params.outputX) { return; }
  let low = ${name}(get_user_x(0, 0, i32(2u * i)));
  let high = ${name}(get_user_x(0, 0, min(i32(2u * i + 1u), params.user_length - 1)));
  putWord(i, low | (high << 16u));`,
  },
});
const PACK = { bfloat16: packing("toBfloat16"), float16: packing("toFloat16") };
