import { SINGLE_ARITHMETIC, conformance } from "../../testing/conformance.ts";
import { WasmBackend } from "./backend.ts";
import type { Placement } from "./heap.ts";

/** Every second buffer lies outside the first memory. */
function everySecond(): Placement {
  let count = 0;
  return () => (count++ % 2 === 0 ? 0 : 1);
}

for (const threads of [1, 2]) {
  conformance(
    "wasm",
    async () => {
      const backend = new WasmBackend({ threads }, everySecond());
      await backend.ready();
      return backend;
    },
    { tolerances: SINGLE_ARITHMETIC, setting: `${threads} threads, buffers in two memories` },
  );
}
