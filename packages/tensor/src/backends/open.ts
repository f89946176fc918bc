import type { Backend } from "../backend.ts";
import { BackendError } from "../errors.ts";
import { CpuBackend } from "./cpu/backend.ts";
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

/** The backend of new tensors: the one set, else the cpu backend. */
export function defaultBackend(): Backend {
  if (!current) {
    const opened = openers.get("cpu")!({});
    if (opened instanceof Promise)
      throw new BackendError("defaultBackend: none is set; call setDefaultBackend(await openBackend(name))");
    current = opened;
  }
  return current;
}
