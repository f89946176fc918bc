import type { Results } from "./runner.ts";

/** What large operations gave: the threads that took part, and the sum of the results' bits. */
export interface Large {
  readonly threads: number;
  readonly bits: number;
}

/** What a run of the suites in a worker came to. */
export interface Report extends Results {
  /** `info` of each backend that was opened. */
  readonly backends: readonly Readonly<Record<string, unknown>>[];
  /** The same operations on the page's own thread, and in the worker on one thread and, where there can be two, on two. */
  readonly page: Large | null;
  readonly worker: readonly Large[];
  readonly isolated: boolean;
  readonly hasSharedArrayBuffer: boolean;
}
