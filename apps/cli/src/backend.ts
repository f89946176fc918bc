import { type Backend, BackendError, defaultBackend, openBackend, setDefaultBackend } from "@neolog/tensor";
import { count } from "./text.ts";

/** Open for as long as the process lives: V8 heeds the flags that wasm asks for only before it compiles anything. */
const opened = new Map<string, Backend>();

export interface BackendFlags {
  readonly backend?: string | undefined;
  readonly allowSoftware?: boolean | undefined;
}

/** Computes on the named backend, else on the fastest that runs here. Throws BackendError for one that does not. */
export async function chooseBackend({ backend, allowSoftware }: BackendFlags = {}): Promise<void> {
  setDefaultBackend(backend === undefined ? await fastest() : await openNamed(backend, allowSoftware));
}

async function fastest(): Promise<Backend> {
  try {
    return await openNamed("wasm");
  } catch (error) {
    if (error instanceof BackendError) return openNamed("cpu");
    throw error;
  }
}

/** `gpu:webgpu` is one mode of the GPU backend. Throws BackendError where it does not run. */
export async function openNamed(name: string, allowSoftware = false): Promise<Backend> {
  const key = isGpu(name) ? `${name} ${allowSoftware}` : name;
  const backend =
    opened.get(key) ?? (await (isGpu(name) ? openGpu(name, allowSoftware) : openBackend(name, { v8Flags: true })));
  opened.set(key, backend);
  return backend;
}

const isGpu = (name: string): boolean => name === "gpu" || name.startsWith("gpu:");

/** `gpu`, or `gpu:webasm` for one mode of it. Its package is loaded when it is asked for; the command runs without. */
async function openGpu(name: string, allowSoftware: boolean): Promise<Backend> {
  try {
    await import("@neolog/gpu");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ERR_MODULE_NOT_FOUND") throw error;
    throw new BackendError("--backend gpu: the package @neolog/gpu must be here, found none; npm install @neolog/gpu");
  }
  const [, mode] = name.split(":");
  try {
    return await openBackend("gpu", { allowSoftware, ...(mode === undefined ? {} : { mode }) });
  } catch (error) {
    throw error instanceof BackendError ? inFlags(error) : error;
  }
}

/** The same error, its way out a flag. */
function inFlags(error: BackendError): BackendError {
  const { refused } = error as { refused?: Readonly<Record<string, string>> };
  const said = (text: string): string => text.replaceAll("pass allowSoftware: true", "pass --allow-software");
  if (!refused) return error;
  const reasons = Object.entries(refused).map(([mode, reason]) => [mode, said(reason)] as const);
  return Object.assign(new BackendError(said(error.message)), { refused: Object.fromEntries(reasons) });
}

/** What the results of a command say of the backend that they come from. */
export const backendInfo = (): Backend["info"] => defaultBackend().info;

/** The same for people: `wasm, 2 threads`. */
export function backendLine(): string {
  const { name, threads, mode, adapter } = backendInfo();
  if (mode !== undefined) return `${name}, ${mode} on ${adapter}`;
  return typeof threads === "number" ? `${name}, ${count(threads, "thread")}` : String(name);
}
