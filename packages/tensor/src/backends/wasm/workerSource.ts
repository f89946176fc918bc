/** Words of the control block at CONTROL, as int32; one job at a time. */
export const WORD = {
  /** Changes when there is something new to look at. */
  GENERATION: 0,
  /** Modules and memories that a worker must have received to take part. */
  VERSION: 1,
  /** generation · 256 + the next chunk to take; see `claim`. */
  COUNTER: 2,
  /** Chunks of the job, at most 254. */
  CHUNKS: 3,
  /** Chunks done. */
  DONE: 4,
  /** Workers that sleep until GENERATION changes. */
  SLEEPERS: 5,
  /** 1 while the main thread sleeps until DONE changes. */
  MAIN_SLEEPS: 6,
  /** 1 when a chunk of the job trapped. */
  FAILED: 7,
  MODULE: 8,
  KERNEL: 9,
  MEMORY: 10,
  /** Items of a chunk, and of the job. */
  GRAIN: 11,
  ITEMS: 12,
} as const;
export const WORDS = 16;

/** Loads of GENERATION before a worker goes to sleep: about 100 µs. */
const SPIN = 20_000;

/** What a worker is sent: what is new, and how many messages it must have received by then. */
export interface WorkerMessage {
  readonly memories: readonly WebAssembly.Memory[];
  readonly modules: readonly { readonly module: WebAssembly.Module; readonly kernels: readonly string[] }[];
  readonly control: number;
  readonly args: number;
  readonly scratch: number;
}

/**
 * The program of a worker, plain JavaScript that runs in Node and in browsers: a string, so that it needs no file of its own and no
 * bundler. It takes chunks of jobs until a job needs what it has not received; then it returns to its event loop for the message.
 * A chunk is taken by one compare-and-swap on COUNTER, which names the generation, so that a late worker can take nothing of a job
 * that is over.
 */
export const WORKER_SOURCE = `"use strict";
const port = typeof require === "function" ? require("node:worker_threads").parentPort : null;
const memories = [], modules = [], instances = new Map();
let version = 0, generation = 0, control, args, scratch;
const receive = (message) => {
  memories.push(...message.memories);
  modules.push(...message.modules);
  ({ args, scratch } = message);
  if (version === 0) (port ?? self).postMessage("online");
  control ??= new Int32Array(memories[0].buffer, message.control, ${WORDS});
  version++;
  work();
};
if (port) port.on("message", receive);
else self.onmessage = (event) => receive(event.data);
const kernelOf = (module, kernel, memory) => {
  const key = module + "/" + memory;
  let exports = instances.get(key);
  if (!exports) {
    exports = new WebAssembly.Instance(modules[module].module, { env: { memory: memories[memory] }, math: Math }).exports;
    instances.set(key, exports);
  }
  return exports[modules[module].kernels[kernel]];
};
const claim = () => {
  for (;;) {
    const counter = Atomics.load(control, ${WORD.COUNTER});
    const chunk = counter & 255;
    if (counter >>> 8 !== generation || chunk >= Atomics.load(control, ${WORD.CHUNKS})) return -1;
    if (Atomics.compareExchange(control, ${WORD.COUNTER}, counter, counter + 1) === counter) return chunk;
  }
};
const work = () => {
  for (;;) {
    // in this order: a job is announced after what it needs, so that who sees it sees that, too
    const now = Atomics.load(control, ${WORD.GENERATION});
    if (Atomics.load(control, ${WORD.VERSION}) > version) return;
    if (now === generation) {
      let spins = 0;
      while (Atomics.load(control, ${WORD.GENERATION}) === generation) {
        if (++spins < ${SPIN}) continue;
        Atomics.add(control, ${WORD.SLEEPERS}, 1);
        Atomics.wait(control, ${WORD.GENERATION}, generation);
        Atomics.sub(control, ${WORD.SLEEPERS}, 1);
      }
      continue;
    }
    generation = now;
    for (let chunk; (chunk = claim()) >= 0; ) {
      try {
        const kernel = kernelOf(control[${WORD.MODULE}], control[${WORD.KERNEL}], control[${WORD.MEMORY}]);
        const from = chunk * control[${WORD.GRAIN}];
        kernel(args, from, Math.min(from + control[${WORD.GRAIN}], control[${WORD.ITEMS}]), scratch);
      } catch {
        Atomics.store(control, ${WORD.FAILED}, 1);
      }
      Atomics.add(control, ${WORD.DONE}, 1);
      if (Atomics.load(control, ${WORD.MAIN_SLEEPS})) Atomics.notify(control, ${WORD.DONE});
    }
  }
};
`;
