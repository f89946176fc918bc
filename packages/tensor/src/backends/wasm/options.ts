import { BackendError } from "../../errors.ts";
import { MAX_THREADS } from "./layoutOfMemory.ts";

export interface WasmOptions {
  /** Threads, the calling one included; as many as there are cores by default. */
  readonly threads?: number;
  /** Bytes of buffers at most; unlimited by default. */
  readonly maxBytes?: number;
  /** Set V8's flags for faster kernels, for the whole process; off by default. Ask before anything of WebAssembly is compiled. */
  readonly v8Flags?: boolean;
}

const NAMES: readonly string[] = ["threads", "maxBytes", "v8Flags"] satisfies (keyof WasmOptions)[];

/** Throws BackendError for an option that is unknown or cannot be. */
export function checkOptions(options: WasmOptions): void {
  const unknown = Object.keys(options).find((name) => !NAMES.includes(name));
  if (unknown !== undefined) throw new BackendError(`wasm: options are ${NAMES.join(", ")}, got ${unknown}`);
  const { threads, maxBytes, v8Flags } = options;
  if (threads !== undefined && !(Number.isInteger(threads) && threads >= 1 && threads <= MAX_THREADS))
    throw new BackendError(`wasm: threads must be an integer from 1 to ${MAX_THREADS}, got ${threads}`);
  if (maxBytes !== undefined && !(typeof maxBytes === "number" && maxBytes > 0))
    throw new BackendError(`wasm: maxBytes must be a number above 0, got ${maxBytes}`);
  if (v8Flags !== undefined && typeof v8Flags !== "boolean")
    throw new BackendError(`wasm: v8Flags must be true or false, got ${String(v8Flags)}`);
}
