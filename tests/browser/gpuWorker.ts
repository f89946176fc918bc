import { type GpuOptions, openGpu } from "@neolog/gpu";
import { conformance } from "@neolog/tensor/testing";
import { GPU_ARITHMETIC } from "./gpuTolerances.ts";
import { goldenSuite } from "./goldenSuite.ts";
import { packedMatmulSuite } from "./packedMatmul.ts";
import { type Results, runSuites } from "./runner.ts";

export interface GpuRequest extends Pick<GpuOptions, "mode"> {
  /** A regular expression that names tests; all by default. */
  readonly only?: string;
  /** Recorded models that are served. */
  readonly models: readonly string[];
}
export type GpuReport =
  | (Results & { readonly info: Readonly<Record<string, unknown>> | null })
  | { readonly error: string };

/** Runs the conformance suite in one mode of the GPU backend, on a software adapter if there is no other. */
async function report({ mode, only, models }: GpuRequest): Promise<GpuReport> {
  let info: Readonly<Record<string, unknown>> | null = null;
  const open = async () => {
    const backend = await openGpu({ ...(mode ? { mode } : {}), allowSoftware: true });
    ({ info } = backend);
    return backend;
  };
  const suites = (): void => {
    conformance("gpu", open, { tolerances: GPU_ARITHMETIC, setting: mode ?? "" });
    packedMatmulSuite(open);
    goldenSuite(new URL("/models", location.href).href, models, open);
  };
  return { ...(await runSuites(suites, only === undefined ? undefined : new RegExp(only))), info };
}

globalThis.addEventListener("message", ({ data }: MessageEvent<GpuRequest>) => {
  report(data)
    .catch((error: unknown): GpuReport => ({ error: String(error) }))
    .then((answer) => globalThis.postMessage(answer, { transfer: [] }))
    .catch(() => undefined);
});
