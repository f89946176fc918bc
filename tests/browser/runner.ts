import { type Task, type VitestRunner, type VitestRunnerConfig, startTests } from "@vitest/runner";

/** What a run of test suites came to. */
export interface Results {
  readonly passed: number;
  readonly skipped: number;
  /** Name and error of each test that failed. */
  readonly failed: readonly (readonly [name: string, error: string])[];
}

const CONFIG = {
  root: "/",
  setupFiles: [],
  name: "browser",
  passWithNoTests: false,
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
} satisfies Omit<VitestRunnerConfig, "testNamePattern">;

/** Runs the suites that `define` describes, or those of their tests that the pattern names, in a browser's worker. */
export async function runSuites(define: () => void, testNamePattern?: RegExp): Promise<Results> {
  const config: VitestRunnerConfig = { ...CONFIG, testNamePattern };
  const runner: VitestRunner = { config, importFile: define };
  const files = await startTests(["suites"], runner);
  const tests = files.flatMap(testsOf);
  const suiteErrors = files.flatMap((file) => file.result?.errors ?? []);
  return {
    passed: tests.filter(({ result }) => result?.state === "pass").length,
    skipped: tests.filter(({ result, mode }) => result?.state === "skip" || mode === "skip").length,
    failed: [
      ...tests
        .filter(({ result }) => result?.state === "fail")
        .map((test): [string, string] => [nameOf(test), textOf(test.result?.errors?.[0])]),
      ...suiteErrors.map(({ message }): [string, string] => ["suite", message]),
    ],
  };
}

function testsOf(task: Task): Task[] {
  return task.type === "suite" ? task.tasks.flatMap(testsOf) : [task];
}

const nameOf = (task: Task): string => (task.suite?.suite ? `${task.suite.name} > ${task.name}` : task.name);

/** A property says in its cause what did not hold. */
function textOf(error: { message: string; cause?: unknown } | undefined): string {
  const cause = error?.cause as { readonly message?: string } | undefined;
  return [error?.message ?? "unknown", cause?.message].filter(Boolean).join("\n");
}
