import type { Backend } from "../backend.ts";
import { BackendError } from "../errors.ts";
import { CpuBackend } from "./cpu/backend.ts";
import { MetaBackend } from "./meta.ts";
import { ReferenceBackend } from "./reference/backend.ts";
import { WasmBackend } from "./wasm/backend.ts";

type Opener = (options: Readonly<Record<string, unknown>>) => Backend | Promise<Backend>;

const openers = new Map<string, Opener>([
  ["reference", () => new ReferenceBackend()],
  ["cpu", () => new CpuBackend()],
  [
    "wasm",
    async (options) => {
      const backend = new WasmBackend(options);
      await backend.ready();
      return backend;
    },
  ],
]);
let current: Backend | null = null;

/** Makes `openBackend(name)` work; called once by the module that brings a backend. */
export function registerBackend(name: string, open: Opener): void {
  openers.set(name, open);
}

/** Opens a backend by name. Throws BackendError for an unknown one, listing those that are here. */
export async function openBackend(name: string, options: Readonly<Record<string, unknown>> = {}): Promise<Backend> {
  const open = openers.get(name);
  if (!open) {
    const remedy = name === "gpu" ? "; install @neolog/gpu and import it first" : "";
    throw new BackendError(
      `openBackend: name must be one of ${[...openers.keys()].join(", ")}, got "${name}"${remedy}`,
    );
  }
  return open(options);
}

export function setDefaultBackend(backend: Backend): void {
  current = backend;
}

/** The backend of new tensors: the one set, else the fastest that runs here: wasm, or cpu where WebAssembly lacks what that needs. */
export function defaultBackend(): Backend {
  current ??= fastest();
  return current;
}

/** What `create` makes has shapes and no elements, where it asks for no other backend: it takes no memory. `create` is synchronous. */
export function withShapesOnly<T>(create: () => T): T {
  const before = current;
  current = new MetaBackend();
  try {
    return create();
  } finally {
    current = before;
  }
}

function fastest(): Backend {
  try {
    return new WasmBackend();
  } catch (error) {
    if (error instanceof BackendError) return new CpuBackend();
    throw error;
  }
}
