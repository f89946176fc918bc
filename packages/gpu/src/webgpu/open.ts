import type { GpuJs } from "../facade.ts";
import type { KernelStyle } from "../wgsl/tunedKernel.ts";
import { WebGpuExecutor } from "./executor.ts";

export interface WebGpuOptions {
  /** Takes a software adapter too, where it is asked for; it is slower than the wasm backend. */
  readonly allowSoftware?: boolean;
  readonly powerPreference?: "high-performance" | "low-power";
  /** Splits arrays longer than this, where it is below the adapter's limit. */
  readonly maxBindingBytes?: number;
  readonly maxPending?: number;
  readonly poolBytes?: number;
  /** Which tuned kernels run: `shared`, a GPU's, or `alone`, a software adapter's. By default what suits the adapter. */
  readonly style?: KernelStyle;
}

/** A mode's executor, or why there is none. */
export type Opened<E> = { readonly executor: E } | { readonly refused: string };

/** Dawn, which crashes when it is collected while a device lives. */
declare global {
  var neologDawn: GPU | undefined;
}

/** Opens WebGPU: the browser's, or in Node the one of the package webgpu. */
export async function openWebGpu(lib: GpuJs, options: WebGpuOptions): Promise<Opened<WebGpuExecutor>> {
  const gpu = await webgpu();
  if (typeof gpu === "string") return { refused: gpu };
  const adapter = await gpu.requestAdapter({ powerPreference: options.powerPreference ?? "high-performance" });
  if (!adapter) return { refused: "no adapter; a driver for Vulkan, Metal or Direct3D 12 is needed" };
  const { vendor, architecture, device: model, description } = adapter.info;
  const name = [vendor, architecture, model, description].filter(Boolean).join(" ");
  const software = isSoftware(adapter.info);
  if (software && !options.allowSoftware)
    return { refused: `${name} computes in software; pass allowSoftware: true to take it anyway` };
  const { maxStorageBufferBindingSize, maxBufferSize } = adapter.limits;
  const requiredLimits = Object.fromEntries(LIMITS.map((limit) => [limit, adapter.limits[limit]]));
  const device = await adapter.requestDevice({ requiredLimits });
  const largest = Math.min(maxStorageBufferBindingSize, maxBufferSize, 2 ** 31);
  const maxBindingBytes = Math.min(largest, options.maxBindingBytes ?? largest);
  const executor = new WebGpuExecutor(lib, {
    device,
    info: { adapter: name, software, arithmetic: "float32", maxBindingBytes, maxBufferBytes: maxBufferSize },
    maxBindingBytes,
    maxPending: options.maxPending ?? 256,
    poolBytes: options.poolBytes ?? 2 ** 30,
    style: options.style ?? (software ? "alone" : "shared"),
  });
  return { executor };
}

const LIMITS = [
  "maxStorageBufferBindingSize",
  "maxBufferSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
] as const;

/** SwiftShader, llvmpipe, WARP, or what calls itself a fallback. */
const isSoftware = (info: GPUAdapterInfo): boolean =>
  info.isFallbackAdapter ||
  /swiftshader|llvmpipe|lavapipe|warp|basic render/i.test(`${info.architecture} ${info.device} ${info.description}`);

/** The API, or why it is absent. */
async function webgpu(): Promise<GPU | string> {
  const { navigator } = globalThis as { navigator?: Navigator };
  if (navigator?.gpu) return navigator.gpu;
  if (typeof process === "undefined" || !process.versions?.node) return "this browser has no WebGPU";
  if (globalThis.neologDawn) return globalThis.neologDawn;
  try {
    const { create } = await import("webgpu");
    globalThis.neologDawn = create([]);
    return globalThis.neologDawn;
  } catch (error) {
    return `the package webgpu does not load (${String(error).split("\n")[0]}); npm install webgpu@0.6.2`;
  }
}
