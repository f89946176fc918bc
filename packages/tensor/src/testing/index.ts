export * from "./arbitraries.ts";
export * from "./backends.ts";
export type { Tolerances } from "./bench.ts";
export { SINGLE_ARITHMETIC, conformance } from "./conformance.ts";
export * from "./matchers.ts";
