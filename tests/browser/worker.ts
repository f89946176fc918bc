import { openBackend } from "@neolog/tensor";
import { SINGLE_ARITHMETIC, conformance } from "@neolog/tensor/testing";
import { type Task, type VitestRunner, type VitestRunnerConfig, startTests } from "@vitest/runner";
import { computeLarge } from "./large.ts";
import type { Report } from "./report.ts";

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

const config = {
  root: "/",
  setupFiles: [],
  name: "browser",
  passWithNoTests: false,
  testNamePattern: undefined,
  allowOnly: false,
  sequence: { seed: 0, hooks: "stack", setupFiles: "list" },
  chaiConfig: undefined,
  maxConcurrency: 1,
  testTimeout: 120_000,
  hookTimeout: 120_000,
  retry: 0,
  includeTaskLocation: false,
  tags: [],
  tagsFilter: undefined,
  strictTags: false,
} satisfies VitestRunnerConfig;

const runner: VitestRunner = { config, importFile: suites };

function testsOf(task: Task): Task[] {
  return task.type === "suite" ? task.tasks.flatMap(testsOf) : [task];
}

const files = await startTests(["conformance"], runner);
const tests = files.flatMap(testsOf);
const suiteErrors = files.flatMap((file) => file.result?.errors ?? []);
const report: Report = {
  passed: tests.filter(({ result }) => result?.state === "pass").length,
  skipped: tests.filter(({ result, mode }) => result?.state === "skip" || mode === "skip").length,
  failed: [
    ...tests
      .filter(({ result }) => result?.state === "fail")
      .map(({ name, result }): [string, string] => [name, result?.errors?.[0]?.message ?? "unknown"]),
    ...suiteErrors.map(({ message }): [string, string] => ["suite", message]),
  ],
  backends,
  page: null,
  worker: [await computeLarge(1), await computeLarge(2)],
  isolated: globalThis.crossOriginIsolated,
  hasSharedArrayBuffer: typeof SharedArrayBuffer === "function",
};
globalThis.postMessage(report, { transfer: [] });
