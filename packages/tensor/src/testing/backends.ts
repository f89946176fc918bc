import type { Backend } from "../backend.ts";
import { openBackend } from "../backends/open.ts";

/** A backend and what tests call it. */
export interface TestedBackend {
  readonly title: string;
  readonly backend: Backend;
}

/** The backends that people compute on, for suites that every one of them passes: wasm with one thread and with two, and cpu. */
export const computingBackends = async (): Promise<TestedBackend[]> => [
  { title: "wasm, 1 thread", backend: await openBackend("wasm", { threads: 1 }) },
  { title: "wasm, 2 threads", backend: await openBackend("wasm", { threads: 2 }) },
  { title: "cpu", backend: await openBackend("cpu") },
];
