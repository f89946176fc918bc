import { openBackend } from "@neolog/tensor";
import { SINGLE_ARITHMETIC, conformance } from "@neolog/tensor/testing";
import { computeLarge } from "./large.ts";
import type { Report } from "./report.ts";
import { runSuites } from "./runner.ts";

const backends: Report["backends"][number][] = [];

/** The suites, on one thread and on two. */
function suites(): void {
  for (const threads of [1, 2]) {
    conformance(
      "wasm",
      async () => {
        const backend = await openBackend("wasm", { threads });
        backends.push(backend.info);
        return backend;
      },
      { tolerances: SINGLE_ARITHMETIC, setting: `${threads} threads` },
    );
  }
}

const report: Report = {
  ...(await runSuites(suites)),
  backends,
  page: null,
  worker: [await computeLarge(1), await computeLarge(2)],
  isolated: globalThis.crossOriginIsolated,
  hasSharedArrayBuffer: typeof SharedArrayBuffer === "function",
};
globalThis.postMessage(report, { transfer: [] });
