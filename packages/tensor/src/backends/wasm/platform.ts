/** A built-in module of Node, or null elsewhere; synchronous, and invisible to bundlers. */
export function nodeModule<N extends keyof NodeModules>(name: N): NodeModules[N] | null {
  return globalThis.process?.getBuiltinModule?.(name) ?? null;
}

interface NodeModules {
  "node:v8": typeof import("node:v8");
  "node:os": typeof import("node:os");
  "node:worker_threads": typeof import("node:worker_threads");
}

/** Cores that may be used. */
export const coreCount = (): number =>
  nodeModule("node:os")?.availableParallelism() ?? globalThis.navigator?.hardwareConcurrency ?? 1;

/** True where memory can be shared with workers, and this thread may wait for them. */
export const canShareMemory = (): boolean =>
  nodeModule("node:worker_threads") !== null || globalThis.crossOriginIsolated;
