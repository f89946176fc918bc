import type { Reduction, View } from "../../backend.ts";
import type { DType } from "../../dtype.ts";
import { dataOf } from "../hostMemory.ts";
import { cached, compile, load, store } from "./generate.ts";

/** The value `r` (for argmax also `at`, where it was found) after element `x` at position `j`. */
const STEPS: {
  readonly [R in Reduction]: { readonly start: string; readonly step: (r: string, at: string) => string };
} = {
  sum: { start: "0", step: (r) => `${r} += x;` },
  max: { start: "-Infinity", step: (r) => `${r} = Math.max(${r}, x);` },
  min: { start: "Infinity", step: (r) => `${r} = Math.min(${r}, x);` },
  argmax: {
    start: "-Infinity",
    step: (r, at) => `if (x > ${r} || (x !== x && ${r} === ${r})) { ${r} = x; ${at} = j; }`,
  },
};

/** x [outer, n, inner] → out [outer, inner], in float64, in ascending order. */
export function reduce(reduction: Reduction, out: View, x: View): void {
  const [outer, n, inner] = x.layout.shape as [number, number, number];
  const kernel = inner === 1 ? alongRows : alongColumns;
  kernel(reduction, out.buffer.dtype, x.buffer.dtype)(
    dataOf(out.buffer),
    out.layout.offset,
    dataOf(x.buffer),
    x.layout.offset,
    outer,
    n,
    inner,
  );
}

const PARAMETERS = ["out", "to", "data", "from", "outer", "n", "inner"];

const alongRows = cached((reduction, outDType, dtype) => {
  const { start, step } = STEPS[reduction as Reduction];
  return compile(
    PARAMETERS,
    `for (let o = 0; o < outer; o++, from += n) {
      let r = ${start}, at = 0;
      for (let j = 0; j < n; j++) {
        const x = ${load(dtype as DType, "data", "from + j")};
        ${step("r", "at")}
      }
      ${store(outDType as DType, "out", "to + o", reduction === "argmax" ? "at" : "r")}
    }`,
  );
});

const alongColumns = cached((reduction, outDType, dtype) => {
  const { start, step } = STEPS[reduction as Reduction];
  return compile(
    PARAMETERS,
    `const r = new Float64Array(inner), at = new Int32Array(inner);
    for (let o = 0; o < outer; o++, to += inner) {
      r.fill(${start});
      at.fill(0);
      for (let j = 0; j < n; j++, from += inner) {
        for (let i = 0; i < inner; i++) {
          const x = ${load(dtype as DType, "data", "from + i")};
          ${step("r[i]", "at[i]")}
        }
      }
      for (let i = 0; i < inner; i++) { ${store(outDType as DType, "out", "to + i", reduction === "argmax" ? "at[i]" : "r[i]")} }
    }`,
  );
});
