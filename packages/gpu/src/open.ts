import { BackendError } from "@neolog/tensor";
import { GpuBackend } from "./backend.ts";
import { loadGpuJs } from "./facade.ts";
import { WebAsmExecutor } from "./webasm/executor.ts";

export interface GpuOptions {
  /** `webasm` runs the kernels in WebAssembly, slowly, on machines without a GPU. */
  readonly mode?: "webasm";
}

/** Opens the mode asked for. Throws BackendError for an unknown one. */
export async function openGpu({ mode }: GpuOptions = {}): Promise<GpuBackend> {
  if (mode !== "webasm") throw new BackendError(`gpu: mode must be webasm, got ${mode}`);
  return new GpuBackend(new WebAsmExecutor(await loadGpuJs(), {}));
}
