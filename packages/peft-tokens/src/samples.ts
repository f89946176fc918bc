import { type Tensor, intTensor } from "@neolog/tensor";
import type { Samples } from "./effective.ts";
import { ConfigError } from "./errors.ts";

/** The flag of the sample to which each of n positions belongs; the positions of a sample lie together. */
export function eachOf(samples: Samples, n: number): boolean[] {
  const each = n / samples.length;
  if (!Number.isInteger(each)) {
    throw new ConfigError(
      "ARGUMENT",
      `adapterNames: must name one adapter for each sample, got ${samples.length} for ${n} positions`,
      { names: samples.length, positions: n },
    );
  }
  return Array.from({ length: n }, (_, i) => samples[Math.floor(i / each)]!);
}

/** int32 [..., 1]: 1 at the rows of x [..., hidden] that belong to these samples. */
export function maskOf(samples: Samples, x: Tensor): Tensor {
  const leading = x.shape.slice(0, -1);
  const rows = leading.reduce((product, d) => product * d, 1);
  return intTensor(
    eachOf(samples, rows).map((flag) => (flag ? 1 : 0)),
    [...leading, 1],
    x.backend,
  );
}
