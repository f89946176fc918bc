import { type GpuBackend, type GpuOptions, openGpu } from "@neolog/gpu";
import { conformance } from "@neolog/tensor/testing";
import { singleGradients } from "../../packages/autograd/src/testing/singleGradients.ts";
import { attentionSuite } from "./attentionInChunks.ts";
import { toleranceOf } from "../../packages/gpu/src/testing.ts";
import { goldenSuite } from "../goldenSuite.ts";
import { halfSizeSuite } from "./halfSize.ts";
import { longRowsSuite } from "./longRows.ts";
import { prepareSuite } from "../prepareSuite.ts";
import { packedMatmulSuite } from "./packedMatmul.ts";
import { rulesSuite } from "./rulesSuite.ts";
import { type Results, runSuites } from "./runner.ts";
import { wholeTexelsSuite } from "./wholeTexels.ts";
import { type Held, steadySuite } from "./steadySuite.ts";

export interface GpuRequest extends Pick<GpuOptions, "mode"> {
  /** A regular expression that names tests; all by default. */
  readonly only?: string;
  /** Recorded models that are served. */
  readonly models: readonly string[];
  /** Of the run that must not grow. */
  readonly steps: number;
}
export type GpuReport =
  | (Results & { readonly info: Readonly<Record<string, unknown>> | null; readonly held: readonly Held[] })
  | { readonly error: string };

/** Runs the conformance suite in one mode of the GPU backend, on a software adapter if there is no other. */
async function report({ mode, only, models, steps }: GpuRequest): Promise<GpuReport> {
  let info: Readonly<Record<string, unknown>> | null = null;
  const open = async (): Promise<GpuBackend> => {
    const backend = await openGpu({ ...(mode ? { mode } : {}), allowSoftware: true });
    ({ info } = backend);
    return backend;
  };
  const held: Held[] = [];
  let opened: Promise<GpuBackend> | null = null;
  const shared = (): Promise<GpuBackend> => (opened ??= open()); // a page has at most 16 contexts of WebGL
  const url = new URL("/models", location.href).href;
  const suites = (): void => {
    conformance("gpu", open, { tolerances: toleranceOf(mode), setting: mode ?? "" });
    packedMatmulSuite(shared);
    attentionSuite(shared);
    longRowsSuite(shared);
    wholeTexelsSuite(shared);
    halfSizeSuite(shared);
    rulesSuite(shared);
    singleGradients(shared, { numRuns: 5 });
    goldenSuite(url, models, shared);
    prepareSuite(`${url}/gpt2/base`, open);
    steadySuite(`${url}/gpt2/base`, steps, open, (at) => held.push(at));
  };
  return { ...(await runSuites(suites, only === undefined ? undefined : new RegExp(only))), info, held };
}

globalThis.addEventListener("message", ({ data }: MessageEvent<GpuRequest>) => {
  report(data)
    .catch((error: unknown): GpuReport => ({ error: String(error) }))
    .then((answer) => globalThis.postMessage(answer, { transfer: [] }))
    .catch(() => undefined);
});
