import { type Backend, Scope, openBackend, tensor } from "@neolog/tensor";
import { expectClose } from "@neolog/tensor/testing";
import * as fc from "fast-check";
import { beforeAll, describe, test } from "vitest";
import { gradientTensors, gradientsOf } from "../gradcheck.ts";
import { CASES } from "./cases.ts";

/** Of the largest gradient, as recorded gradients are compared; what was seen, in layerNorm, is below 4e-6. */
const SINGLE = 2e-5;

/** The gradient of every op on a backend, in float32, against the reference's in float64, which agrees with differences. */
export function singleGradients(open: () => Promise<Backend>, { numRuns = 25, tolerance = SINGLE } = {}): void {
  describe("the gradient in float32 is that of float64", () => {
    let tested: Backend;
    let reference: Backend;
    beforeAll(async () => {
      [tested, reference] = await Promise.all([open(), openBackend("reference")]);
    });
    const names = Object.keys(CASES).filter((op) => op !== "cast"); // to float64 and back
    test.each(names)("%s", async (op) => {
      await fc.assert(
        fc.asyncProperty(CASES[op as keyof typeof CASES], async ({ inputs, f }) => {
          using _ = new Scope();
          const narrow = inputs.map((x) => x.on(tested, "float32"));
          const values = await Promise.all(narrow.map((x) => x.data()));
          const wide = narrow.map((x, i) => tensor(Float64Array.from(values[i]!), x.shape, "float64", reference));
          const expected = gradientsOf(f, wide);
          for (const [k, gradient] of gradientTensors(f, narrow).entries()) {
            const found = gradient ? await gradient.data() : new Float32Array(expected[k]!.length);
            const largest = Math.max(1, ...expected[k]!.map(Math.abs));
            expectClose(found, expected[k]!, { absolute: tolerance * largest });
          }
        }),
        { numRuns },
      );
    });
  });
}
