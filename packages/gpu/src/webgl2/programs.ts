import type { GpuJs } from "../facade.ts";
import type { Kernel } from "../kernel.ts";
import type { Format } from "./formats.ts";
import type { WebGl2 } from "./open.ts";
import { type Compiling, type Program, startCompiling } from "./translate.ts";

const rest = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 1));

interface Missing {
  readonly kernel: Kernel;
  /** Into how many buffers it renders rows; 0 for one of elements. */
  readonly rows: number;
  /** Of its arrays, null for numbers. */
  readonly formats: readonly (Format | null)[];
  readonly compiling: Compiling;
}

/** Kernels of a context by key and the formats of their arrays: compiled when they are first asked for, or all together, ahead, without stopping the thread. */
export class Programs {
  readonly #lib: GpuJs;
  readonly #context: WebGl2;
  readonly #compiled = new Map<string, Program>();
  /** What the driver compiles, while kernels are collected. */
  #missing: Map<string, Missing> | null = null;

  constructor(lib: GpuJs, context: WebGl2) {
    this.#lib = lib;
    this.#context = context;
  }

  /** How many are compiled. */
  get size(): number {
    return this.#compiled.size;
  }

  /** The kernel; null while kernels are collected, which must not be run then. Throws DeviceError with the driver's words. */
  of(kernel: Kernel, formats: readonly (Format | null)[], rows = 0): Program | null {
    const key = formats.some((format) => format && format !== "float32")
      ? `${kernel.key}|${formats.join(" ")}`
      : kernel.key;
    const known = this.#compiled.get(key);
    const start = (): Compiling => startCompiling(this.#lib, this.#context, kernel, formats);
    if (this.#missing) {
      if (!known && !this.#missing.has(key)) this.#missing.set(key, { kernel, rows, formats, compiling: start() });
      return null;
    }
    return known ?? this.#keep(key, start());
  }

  /** Compiles what `collect` asks for; → what was not there before. Throws DeviceError with the driver's words. */
  async compileAhead(collect: () => void): Promise<(Omit<Missing, "compiling"> & { readonly program: Program })[]> {
    if (this.#missing) {
      collect(); // those around it compile
      return [];
    }
    const missing = (this.#missing = new Map<string, Missing>());
    try {
      collect();
    } finally {
      this.#missing = null;
    }
    const compiled = [];
    for (const [key, { compiling, ...asked }] of missing) {
      while (!compiling.isDone()) await rest();
      compiled.push({ ...asked, program: this.#keep(key, compiling) });
    }
    return compiled;
  }

  #keep(key: string, compiling: Compiling): Program {
    const program = compiling.finish();
    this.#compiled.set(key, program);
    return program;
  }
}
