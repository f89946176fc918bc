import type { Case } from "./case.ts";

export type Unit = "GFLOP/s" | "GB/s" | "ns/element" | "tokens/s" | "ms" | "µs";

/** The figure of a case that took `ns` nanoseconds. */
export function inUnit({ unit, amount, elements = 1 }: Case, ns: number): number {
  if (unit === "GFLOP/s" || unit === "GB/s") return amount / ns;
  if (unit === "ns/element") return ns / elements;
  if (unit === "tokens/s") return (elements * 1e9) / ns;
  return unit === "ms" ? ns / 1e6 : ns / 1e3;
}
