import { BackendError } from "../../errors.ts";
import type { WasmMemory } from "./heap.ts";
import { ARGS, CONTROL, SCRATCH, SCRATCH_BYTES } from "./layoutOfMemory.ts";
import { nodeModule } from "./platform.ts";
import { WORD, WORDS, WORKER_SOURCE, type WorkerMessage } from "./workerSource.ts";

/** Chunks of one job at most: COUNTER keeps the next one in eight bits, of which 255 means "not yet". */
const MAX_CHUNKS = 254;
/** Looks at DONE before the main thread goes to sleep. */
const SPIN = 20_000;
/** How long nothing may be finished before a worker counts as dead. */
const PATIENCE_MS = 30_000;

/** A module that every thread can run. */
export interface LoadedModule {
  readonly id: number;
  readonly module: WebAssembly.Module;
  readonly kernels: readonly string[];
}

type Kernel = (args: number, from: number, to: number, scratch: number) => void;

/** The main thread and its workers, which share the chunks of one job at a time. */
export class Pool {
  readonly #memories: readonly WasmMemory[];
  readonly #threads: number;
  readonly #canWait: boolean;
  readonly #control: Int32Array;
  readonly #modules: LoadedModule[] = [];
  readonly #instances = new Map<string, WebAssembly.Exports>();
  #workers: PortableWorker[] | null = null;
  #sentMemories = 0;
  #sentModules = 0;
  #version = 0;
  #generation = 0;
  #closed = false;

  /** `threads` counts the main one. Workers start with the first job that is worth sharing. */
  constructor(memories: readonly WasmMemory[], threads: number) {
    this.#memories = memories;
    this.#threads = threads;
    this.#control = new Int32Array(memories[0]!.buffer, CONTROL, WORDS);
    this.#canWait = nodeModule("node:worker_threads") !== null || typeof document === "undefined";
  }

  /** Threads that take part: the main one and the workers that are alive. */
  get threads(): number {
    return this.#workers ? 1 + this.#workers.length : this.#threads;
  }

  /** Makes a module known to all threads. */
  add(module: WebAssembly.Module, kernels: readonly string[]): LoadedModule {
    const loaded = { id: this.#modules.length, module, kernels };
    this.#modules.push(loaded);
    return loaded;
  }

  /** Runs a kernel over [0, items) on this thread alone. */
  runHere(module: LoadedModule, kernel: number, memory: number, items: number): void {
    this.#kernel(module, kernel, memory)(ARGS, 0, items, SCRATCH);
  }

  /** Runs a kernel over [0, items), `grain` items at a time, on all threads. Throws BackendError when one traps or dies. */
  run(module: LoadedModule, kernel: number, memory: number, items: number, grain: number): void {
    const share = Math.max(grain, Math.ceil(items / MAX_CHUNKS));
    const chunks = Math.ceil(items / share);
    if (chunks < 2 || this.#threads < 2) return this.runHere(module, kernel, memory, items);
    this.#workers ??= this.#start();
    if (this.#workers.length === 0) return this.runHere(module, kernel, memory, items);
    this.#send();
    const generation = this.#post(module.id, kernel, memory, items, share, chunks);
    const run = this.#kernel(module, kernel, memory);
    let failure: unknown = null;
    for (let chunk; (chunk = this.#claim(generation, chunks)) >= 0;) {
      try {
        run(ARGS, chunk * share, Math.min((chunk + 1) * share, items), SCRATCH);
      } catch (error) {
        failure = error;
      }
      Atomics.add(this.#control, WORD.DONE, 1);
    }
    this.#join(chunks);
    if (failure !== null || Atomics.load(this.#control, WORD.FAILED) !== 0) {
      throw new BackendError(`wasm: kernel ${module.kernels[kernel]} trapped on a thread`, { cause: failure });
    }
  }

  /** Starts the workers, unless they are started already, and waits until they answer: then the first job is shared too. */
  async ready(): Promise<void> {
    if (this.#workers) return;
    this.#workers = this.#start();
    this.#send();
    await Promise.all(this.#workers.map((worker) => worker.online()));
  }

  /** Ends the workers; the pool goes on with the main thread. */
  async close(): Promise<void> {
    this.#closed = true;
    const workers = this.#workers ?? [];
    this.#workers = [];
    await Promise.all(workers.map((worker) => worker.terminate()));
  }

  #post(module: number, kernel: number, memory: number, items: number, grain: number, chunks: number): number {
    const control = this.#control;
    const generation = (this.#generation = (this.#generation + 1) & 0x7fffff);
    Atomics.store(control, WORD.COUNTER, (generation << 8) | 255);
    control[WORD.MODULE] = module;
    control[WORD.KERNEL] = kernel;
    control[WORD.MEMORY] = memory;
    control[WORD.GRAIN] = grain;
    control[WORD.ITEMS] = items;
    control[WORD.FAILED] = 0;
    Atomics.store(control, WORD.CHUNKS, chunks);
    Atomics.store(control, WORD.DONE, 0);
    Atomics.store(control, WORD.COUNTER, generation << 8);
    Atomics.store(control, WORD.GENERATION, generation);
    if (Atomics.load(control, WORD.SLEEPERS) > 0) Atomics.notify(control, WORD.GENERATION);
    return generation;
  }

  #claim(generation: number, chunks: number): number {
    for (;;) {
      const counter = Atomics.load(this.#control, WORD.COUNTER);
      const chunk = counter & 255;
      if (counter >>> 8 !== generation || chunk >= chunks) return -1;
      if (Atomics.compareExchange(this.#control, WORD.COUNTER, counter, counter + 1) === counter) return chunk;
    }
  }

  #join(chunks: number): void {
    const control = this.#control;
    for (let spins = 0; spins < SPIN; spins++) if (Atomics.load(control, WORD.DONE) === chunks) return;
    let before = -1;
    let since = performance.now();
    for (;;) {
      Atomics.store(control, WORD.MAIN_SLEEPS, 1);
      const done = Atomics.load(control, WORD.DONE);
      if (done < chunks && this.#canWait) Atomics.wait(control, WORD.DONE, done, 50);
      Atomics.store(control, WORD.MAIN_SLEEPS, 0);
      if (Atomics.load(control, WORD.DONE) === chunks) return;
      if (done !== before) {
        before = done;
        since = performance.now();
      } else if (performance.now() - since > PATIENCE_MS) {
        void this.close();
        throw new BackendError(
          `wasm: every thread must finish its part, one did not answer for ${PATIENCE_MS / 1000} s; going on with one thread`,
        );
      }
    }
  }

  #kernel(module: LoadedModule, kernel: number, memory: number): Kernel {
    const key = `${module.id}/${memory}`;
    let exports = this.#instances.get(key);
    if (!exports) {
      const env = { memory: this.#memories[memory]!.memory };
      exports = new WebAssembly.Instance(module.module, { env, math: Math as unknown as WebAssembly.ModuleImports })
        .exports;
      this.#instances.set(key, exports);
    }
    return exports[module.kernels[kernel]!] as Kernel;
  }

  /** Sends workers what they have not got; they fetch it when a job asks for it. */
  #send(): void {
    if (this.#sentMemories === this.#memories.length && this.#sentModules === this.#modules.length) return;
    const message = {
      memories: this.#memories.slice(this.#sentMemories).map(({ memory }) => memory),
      modules: this.#modules.slice(this.#sentModules).map(({ module, kernels }) => ({ module, kernels })),
      control: CONTROL,
      args: ARGS,
    };
    this.#workers!.forEach((worker, i) => worker.post({ ...message, scratch: SCRATCH + (i + 1) * SCRATCH_BYTES }));
    this.#sentMemories = this.#memories.length;
    this.#sentModules = this.#modules.length;
    Atomics.store(this.#control, WORD.VERSION, ++this.#version);
  }

  #start(): PortableWorker[] {
    if (this.#closed) return [];
    const workers: PortableWorker[] = [];
    for (let i = 1; i < this.#threads; i++) {
      const worker = startWorker(() => {
        this.#workers = (this.#workers ?? []).filter((other) => other !== worker);
      });
      workers.push(worker);
    }
    return workers;
  }
}

/** What Node's and the browsers' workers have in common. */
interface PortableWorker {
  /** Settles when the worker has received its first message, or has died. */
  online(): Promise<void>;
  post(message: WorkerMessage): void;
  terminate(): Promise<void>;
}

/** Starts a worker that does not keep the process alive. `onEnd` hears when it dies. */
function startWorker(onEnd: () => void): PortableWorker {
  const threads = nodeModule("node:worker_threads");
  if (threads) {
    const worker = new threads.Worker(WORKER_SOURCE, { eval: true, name: "neolog" });
    worker.unref();
    worker.on("error", onEnd);
    worker.on("exit", onEnd);
    return {
      online: async () => {
        worker.ref(); // who waits for it keeps the process alive
        await new Promise<void>((resolve) => {
          worker.once("message", () => resolve());
          worker.once("exit", () => resolve());
        });
        worker.unref();
      },
      post: (message) => worker.postMessage(message, []),
      terminate: async () => {
        await worker.terminate();
      },
    };
  }
  const url = URL.createObjectURL(new Blob([WORKER_SOURCE], { type: "text/javascript" }));
  const worker = new Worker(url, { name: "neolog" });
  worker.addEventListener("error", onEnd);
  return {
    online: () =>
      new Promise((resolve) => {
        worker.addEventListener("message", () => resolve(), { once: true });
        worker.addEventListener("error", () => resolve(), { once: true });
      }),
    post: (message) => worker.postMessage(message, []),
    terminate: async () => {
      worker.terminate();
      URL.revokeObjectURL(url);
    },
  };
}
