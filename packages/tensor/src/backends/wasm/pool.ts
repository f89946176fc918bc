import { BackendError } from "../../errors.ts";
import type { WasmMemory } from "./heap.ts";
import { ARGS, CONTROL, SCRATCH, SCRATCH_BYTES } from "./layoutOfMemory.ts";
import { nodeModule } from "./platform.ts";
import { type PortableWorker, startWorker } from "./portableWorker.ts";
import { WORD, WORDS } from "./workerSource.ts";

/** Chunks of one job at most: COUNTER keeps the next one in eight bits, of which 255 means "not yet". */
const MAX_CHUNKS = 254;
/** Looks at DONE before the main thread goes to sleep. */
const SPIN = 20_000;
const PATIENCE_MS = 30_000;

/** A module that every thread can run. */
export interface LoadedModule {
  readonly id: number;
  readonly module: WebAssembly.Module;
  readonly kernels: readonly string[];
}

type Kernel = (args: number, from: number, to: number, scratch: number) => void;

export interface PoolOptions {
  /** How long no part of a job may be finished before a worker counts as dead, in milliseconds. */
  readonly patience?: number;
  readonly start?: typeof startWorker;
}

/** The workers that are alive, and where the scratch memory of each begins. */
type Workers = Map<PortableWorker, number>;

/** Ends the workers of pools that nobody can reach any more. */
const dropped = new FinalizationRegistry<Workers>((workers) => void endAll(workers));

/** The main thread and its workers, which share the chunks of one job at a time. */
export class Pool {
  readonly #memories: readonly WasmMemory[];
  readonly #threads: number;
  readonly #patience: number;
  readonly #start: typeof startWorker;
  readonly #canWait: boolean;
  readonly #control: Int32Array;
  readonly #modules: LoadedModule[] = [];
  readonly #instances = new Map<string, WebAssembly.Exports>();
  readonly #workers: Workers = new Map();
  #started = false;
  #sentMemories = 0;
  #sentModules = 0;
  #version = 0;
  #generation = 0;

  /** `threads` counts the main one. Workers start with the first job that is worth sharing. */
  constructor(
    memories: readonly WasmMemory[],
    threads: number,
    { patience = PATIENCE_MS, start = startWorker }: PoolOptions = {},
  ) {
    this.#memories = memories;
    this.#threads = threads;
    this.#patience = patience;
    this.#start = start;
    this.#control = new Int32Array(memories[0]!.buffer, CONTROL, WORDS);
    this.#canWait = nodeModule("node:worker_threads") !== null || typeof document === "undefined";
    dropped.register(this, this.#workers, this);
  }

  /** Scratch memories that the threads of a job use: as many as threads were asked for while a worker is alive, else one. */
  get threads(): number {
    return this.#started && this.#workers.size === 0 ? 1 : this.#threads;
  }

  /** Threads that take part: the main one and the workers that are alive, or will be. */
  get alive(): number {
    return this.#started ? 1 + this.#workers.size : this.#threads;
  }

  /** Makes a module known to all threads. */
  add(module: WebAssembly.Module, kernels: readonly string[]): LoadedModule {
    const loaded = { id: this.#modules.length, module, kernels };
    this.#modules.push(loaded);
    return loaded;
  }

  /** Runs a kernel over [0, items) on this thread alone. Throws BackendError when it traps. */
  runHere(module: LoadedModule, kernel: number, memory: number, items: number): void {
    try {
      this.#kernel(module, kernel, memory)(ARGS, 0, items, SCRATCH);
    } catch (error) {
      throw trapped(module, kernel, error);
    }
  }

  /** Runs a kernel over [0, items), `grain` items at a time, on all threads. Throws BackendError when one traps or dies. */
  run(module: LoadedModule, kernel: number, memory: number, items: number, grain: number): void {
    const share = Math.max(grain, Math.ceil(items / MAX_CHUNKS));
    const chunks = Math.ceil(items / share);
    if (chunks < 2 || this.#threads < 2) return this.runHere(module, kernel, memory, items);
    this.#startAll();
    if (this.#workers.size === 0) return this.runHere(module, kernel, memory, items);
    const run = this.#kernel(module, kernel, memory);
    this.#send();
    const generation = this.#post(module.id, kernel, memory, items, share, chunks);
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
    if (failure !== null || Atomics.load(this.#control, WORD.FAILED) !== 0) throw trapped(module, kernel, failure);
  }

  /** Starts the workers, unless they are started already, and waits until they answer: then the first job is shared too. */
  async ready(): Promise<void> {
    this.#startAll();
    if (this.#workers.size === 0) return;
    this.#send();
    await Promise.all(Array.from(this.#workers.keys(), (worker) => worker.online()));
  }

  /** Ends the workers; the pool goes on with the main thread. */
  async close(): Promise<void> {
    this.#started = true;
    dropped.unregister(this);
    await endAll(this.#workers);
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
      } else if (performance.now() - since > this.#patience) {
        void this.close();
        throw new BackendError(
          `wasm: every thread must finish its part, one did not answer for ${this.#patience / 1000} s; going on with one thread`,
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
    for (const [worker, scratch] of this.#workers) worker.post({ ...message, scratch });
    this.#sentMemories = this.#memories.length;
    this.#sentModules = this.#modules.length;
    Atomics.store(this.#control, WORD.VERSION, ++this.#version);
  }

  #startAll(): void {
    if (this.#started) return;
    this.#started = true;
    startAll(this.#workers, this.#threads, this.#start);
  }
}

/** Starts workers 1 … threads − 1. What they hear of their end refers to no pool: else none would ever be collected. */
function startAll(workers: Workers, threads: number, start: typeof startWorker): void {
  for (let i = 1; i < threads; i++) {
    try {
      const worker = start(() => workers.delete(worker));
      workers.set(worker, SCRATCH + i * SCRATCH_BYTES);
    } catch {
      return; // the platform allows no more: those that run share the work
    }
  }
}

async function endAll(workers: Workers): Promise<void> {
  const ending = Array.from(workers.keys(), (worker) => worker.terminate());
  workers.clear();
  await Promise.all(ending);
}

/** `cause` is null where another thread trapped. */
const trapped = ({ kernels }: LoadedModule, kernel: number, cause: unknown): BackendError => {
  const got = cause instanceof Error ? `${cause.name}: ${cause.message}` : "a trap on another thread";
  return new BackendError(`wasm: kernel ${kernels[kernel]} must run to its end, got ${got}`, { cause });
};
