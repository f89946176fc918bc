import type { View } from "../../backend.ts";
import { BYTES_PER_ELEMENT } from "../../dtype.ts";
import { sizeOf } from "../../layout.ts";
import { ModuleBuilder, type KernelSpec } from "./asm/module.ts";
import type { MathName } from "./asm/module.ts";
import { writeConstants } from "./constants.ts";
import { Heap, type Placement, WasmBuffer } from "./heap.ts";
import type { Features } from "./features.ts";
import { ARGS } from "./layoutOfMemory.ts";
import type { TileName } from "./gemm/tiles.ts";
import { type LoadedModule, Pool } from "./pool.ts";

/** Kernels that are compiled together. */
export interface ModuleDefinition {
  readonly math?: readonly MathName[];
  readonly build: (m: ModuleBuilder, features: Features) => void;
}

interface Compiled {
  readonly loaded: LoadedModule;
  readonly kernels: readonly KernelSpec[];
}

/** Below this many multiply-adds or elements, waking another thread costs more than it saves. */
const WORTH_SHARING = 1 << 16;

/** Compiles kernels, hands them arguments, runs them. */
export class Engine {
  readonly features: Features;
  readonly heap: Heap;
  readonly pool: Pool;
  /** The register tile of matrix products. */
  tile: TileName = "4x8";
  readonly #compiled = new Map<ModuleDefinition, Compiled>();

  constructor(features: Features, threads: number, maxBytes: number, placement?: Placement) {
    this.features = features;
    this.heap = new Heap(threads, maxBytes, placement);
    this.pool = new Pool(this.heap.memories, threads);
  }

  /**
   * Runs kernel `name` of a module over [0, items). `work` is about how many multiply-adds an item costs: it decides whether the
   * items are shared among threads and how finely. `memory` is where all addresses point.
   */
  run(
    definition: ModuleDefinition,
    name: string,
    args: readonly number[],
    { items, work, memory = 0, grain = 1 }: { items: number; work: number; memory?: number; grain?: number },
  ): void {
    if (items <= 0) return;
    const { loaded, kernels } = this.#compile(definition);
    const kernel = kernels.findIndex((spec) => spec.name === name);
    const { i32, f32 } = this.heap.memories[memory]!;
    const types = kernels[kernel]!.types;
    for (let i = 0; i < types.length; i++) {
      if (types[i] === "f32") f32[ARGS / 4 + i] = args[i]!;
      else i32[ARGS / 4 + i] = args[i]!;
    }
    if (items * work < 2 * WORTH_SHARING) this.pool.runHere(loaded, kernel, memory, items);
    else this.pool.run(loaded, kernel, memory, items, this.#grain(items, work, grain));
  }

  /** Items of a chunk: about six chunks a thread, none below what is worth sharing; a multiple of `grain`. */
  #grain(items: number, work: number, grain: number): number {
    const fair = Math.ceil(items / (6 * this.pool.threads));
    const least = Math.ceil(WORTH_SHARING / Math.max(1, work));
    return Math.ceil(Math.max(fair, least) / grain) * grain;
  }

  #compile(definition: ModuleDefinition): Compiled {
    const known = this.#compiled.get(definition);
    if (known) return known;
    const m = new ModuleBuilder(definition.math);
    definition.build(m, this.features);
    const module = new WebAssembly.Module(m.build());
    for (const memory of this.heap.memories) writeConstants(memory.i32);
    const names = m.kernels.map(({ name }) => name);
    const compiled = { loaded: this.pool.add(module, names), kernels: m.kernels };
    this.#compiled.set(definition, compiled);
    return compiled;
  }

  /** `length` float32 in a memory for the length of `use`. */
  withTemporary(memory: number, length: number, use: (address: number) => void): void {
    const buffer = this.heap.allocateIn(memory, "float32", length);
    try {
      use(buffer.address);
    } finally {
      this.heap.free(buffer);
    }
  }
}

/** The address of a view's first element, as i32. */
export const addressOf = ({ buffer, layout }: View): number =>
  ((buffer as WasmBuffer).address + layout.offset * BYTES_PER_ELEMENT[buffer.dtype]) | 0;

/** The memory that a view lies in. */
export const memoryOf = ({ buffer }: View): number => (buffer as WasmBuffer).memory.index;

/** True when a view holds float32 in the first memory: what most kernels take. */
export const isLocalFloat32 = (view: View): boolean => view.buffer.dtype === "float32" && memoryOf(view) === 0;

/** Rows and their width: all axes but the last, and the last. */
export const rowsOf = ({ layout: { shape } }: View): [rows: number, width: number] => {
  const width = shape.at(-1) ?? 1;
  return [width === 0 ? 0 : sizeOf(shape) / width, width];
};
