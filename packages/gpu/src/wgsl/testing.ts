import { existsSync } from "node:fs";
import type { Buffer, DType, TypedArray, View } from "@neolog/tensor";
import { type GpuJs, loadGpuJs } from "../facade.ts";
import { Pipelines } from "../webgpu/pipelines.ts";
import { groupsOf, moduleOfTuned, writeParams } from "./compile.ts";
import type { KernelStyle, TunedCall, TunedExecutor } from "./tunedKernel.ts";

/** Where Debian's chromium keeps its software renderer. */
const SWIFTSHADER = "/usr/lib/chromium/vk_swiftshader_icd.json";
const STORAGE = 0x80 | 0x4 | 0x8;

interface DeviceBuffer extends Buffer {
  readonly memory: GPUBuffer;
}

/** One submit for every call: for tests that look at kernels alone. */
export class TestDevice implements TunedExecutor {
  readonly style: KernelStyle;
  readonly #lib: GpuJs;
  readonly #device: GPUDevice;
  readonly #pipelines: Pipelines;
  /** The first error that the device reported since the last read. */
  #error: string | null = null;

  constructor(lib: GpuJs, device: GPUDevice, style: KernelStyle) {
    this.style = style;
    this.#lib = lib;
    this.#device = device;
    this.#pipelines = new Pipelines(device);
    device.addEventListener("uncapturederror", (event) => {
      this.#error ??= event.error.message;
    });
  }

  allocate(dtype: DType, length: number): DeviceBuffer {
    const bytes = length * (dtype === "bfloat16" || dtype === "float16" ? 2 : 4);
    const size = Math.max(16, Math.ceil(bytes / 16) * 16);
    return { dtype, length, memory: this.#device.createBuffer({ size, usage: STORAGE }) };
  }
  free(): void {
    // with the device
  }
  /** A copy of host data on the device; int32 becomes float32, as on the backend. */
  upload(dtype: DType, data: TypedArray): DeviceBuffer {
    const buffer = this.allocate(dtype, data.length);
    const bytes = new Uint8Array(buffer.memory.size);
    const words = dtype === "int32" ? Float32Array.from(data as Int32Array) : data;
    bytes.set(new Uint8Array(words.buffer, words.byteOffset, words.byteLength));
    this.#device.queue.writeBuffer(buffer.memory, 0, bytes);
    return buffer;
  }
  /** The same view of the same elements on the device. */
  view({ buffer, layout }: View, data: TypedArray): View {
    return { buffer: this.upload(buffer.dtype, data), layout };
  }

  runTuned(call: TunedCall): boolean {
    const { kernel } = call;
    const { pipeline, layout, params } = this.#pipelines.of(kernel.key, () => moduleOfTuned(this.#lib, kernel))!;
    const numbers = new DataView(new ArrayBuffer(params.byteLength));
    writeParams(params, call, numbers, 0);
    const uniform = this.#device.createBuffer({ size: params.byteLength, usage: 0x40 | 0x8 });
    this.#device.queue.writeBuffer(uniform, 0, numbers.buffer);
    const memories = [uniform, ...[...call.arrays, call.out].map((buffer) => (buffer as DeviceBuffer).memory)];
    const encoder = this.#device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(
      0,
      this.#device.createBindGroup({
        layout,
        entries: memories.map((buffer, binding) => ({ binding, resource: { buffer } })),
      }),
    );
    pass.dispatchWorkgroups(...groupsOf(call));
    pass.end();
    this.#device.queue.submit([encoder.finish()]);
    return true;
  }

  /** Throws what the device reported since the last read. */
  async read(buffer: Buffer): Promise<Float32Array> {
    const { memory } = buffer as DeviceBuffer;
    const staging = this.#device.createBuffer({ size: memory.size, usage: 0x1 | 0x8 });
    const encoder = this.#device.createCommandEncoder();
    encoder.copyBufferToBuffer(memory, 0, staging, 0, memory.size);
    this.#device.queue.submit([encoder.finish()]);
    await staging.mapAsync(0x1);
    const data = new Float32Array(staging.getMappedRange().slice(0), 0, buffer.length);
    staging.destroy();
    const error = this.#error;
    this.#error = null;
    if (error) throw new Error(error);
    return data;
  }
}

/** A device through Dawn, a software one included, or why there is none. */
export async function openTestDevice(style: KernelStyle): Promise<TestDevice | string> {
  if (!process.env["VK_ICD_FILENAMES"] && existsSync(SWIFTSHADER)) process.env["VK_ICD_FILENAMES"] = SWIFTSHADER;
  let webgpu: typeof import("webgpu");
  try {
    webgpu = await import("webgpu");
  } catch (error) {
    return `webgpu does not load: ${String(error)}`;
  }
  // Dawn crashes once what `create` gave is collected
  const gpu = ((globalThis as { dawn?: GPU }).dawn ??= webgpu.create([]));
  const adapter = await gpu.requestAdapter();
  if (!adapter) return "no Vulkan driver: apt-get install libvulkan1 chromium, or a card's own";
  return new TestDevice(await loadGpuJs(), await adapter.requestDevice(), style);
}
