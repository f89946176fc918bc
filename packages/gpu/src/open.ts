import { BackendError } from "@neolog/tensor";
import { GpuBackend } from "./backend.ts";
import { NoGpuError } from "./errors.ts";
import { type GpuJs, loadGpuJs } from "./facade.ts";
import { WebAsmExecutor } from "./webasm/executor.ts";
import { openWebGl2 } from "./webgl2/open.ts";
import { type WebGpuOptions, openWebGpu } from "./webgpu/open.ts";

export interface GpuOptions extends WebGpuOptions {
  /** The only mode to try. `webasm` runs the kernels in WebAssembly, slowly, on machines without a GPU, and is never chosen by itself. */
  readonly mode?: "webgpu" | "webgl2" | "webasm";
  /** False runs gpu.js's own kernels in place of those that are written in WGSL, to compare with. */
  readonly tuned?: boolean;
}

/** Best first. */
const MODES = ["webgpu", "webgl2"] as const;

/** Opens the mode asked for, else the first that has a GPU. Throws NoGpuError with the reasons where there is none. */
export async function openGpu({ mode, tuned, ...options }: GpuOptions = {}): Promise<GpuBackend> {
  const known = [...MODES, "webasm"];
  if (mode !== undefined && !known.includes(mode))
    throw new BackendError(`gpu: mode must be one of ${known.join(", ")}, got ${mode as string}`);
  const lib = await loadGpuJs();
  if (mode === "webasm") return new GpuBackend(new WebAsmExecutor(lib, {}));
  const refused: Record<string, string> = {};
  for (const name of mode === undefined ? MODES : [mode]) {
    const opened = await open(name, lib, options, refused);
    if ("executor" in opened) return new GpuBackend(opened.executor, tuned);
    refused[name] = opened.refused;
  }
  throw new NoGpuError(refused);
}

const open = (
  mode: (typeof MODES)[number],
  lib: GpuJs,
  options: WebGpuOptions,
  refused: Readonly<Record<string, string>>,
) => (mode === "webgpu" ? openWebGpu(lib, options) : openWebGl2(lib, options, refused));
