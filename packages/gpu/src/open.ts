import { BackendError } from "@neolog/tensor";
import { GpuBackend } from "./backend.ts";
import { NoGpuError } from "./errors.ts";
import { loadGpuJs } from "./facade.ts";
import { WebAsmExecutor } from "./webasm/executor.ts";
import { type WebGpuOptions, openWebGpu } from "./webgpu/open.ts";

export interface GpuOptions extends WebGpuOptions {
  /** The only mode to try. `webasm` runs the kernels in WebAssembly, slowly, on machines without a GPU, and is never chosen by itself. */
  readonly mode?: "webgpu" | "webasm";
}

const MODES = ["webgpu"] as const;

/** Opens the mode asked for, else the first that has a GPU. Throws NoGpuError with the reasons where there is none. */
export async function openGpu({ mode, ...options }: GpuOptions = {}): Promise<GpuBackend> {
  const known = [...MODES, "webasm"];
  if (mode !== undefined && !known.includes(mode))
    throw new BackendError(`gpu: mode must be one of ${known.join(", ")}, got ${mode}`);
  const lib = await loadGpuJs();
  if (mode === "webasm") return new GpuBackend(new WebAsmExecutor(lib, {}));
  const opened = await openWebGpu(lib, options);
  if ("executor" in opened) return new GpuBackend(opened.executor);
  throw new NoGpuError({ webgpu: opened.refused });
}
