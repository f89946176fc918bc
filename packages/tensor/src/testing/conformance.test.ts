import { openBackend } from "../backends/open.ts";
import { SINGLE_ARITHMETIC, conformance } from "./conformance.ts";

conformance("reference", () => openBackend("reference"));
conformance("cpu", () => openBackend("cpu"));
for (const threads of [1, 2]) {
  conformance("wasm", () => openBackend("wasm", { threads }), {
    tolerances: SINGLE_ARITHMETIC,
    setting: `${threads} threads`,
  });
}
