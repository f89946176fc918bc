import { afterAll, describe, expect, test } from "vitest";
import type { Backend } from "../backend.ts";
import type { Tolerances } from "./bench.ts";
import { openBench } from "./openBench.ts";
import { errorsSuite } from "./suites/errors.ts";
import { exactnessSuite } from "./suites/exactness.ts";
import { fusedSuite } from "./suites/fused.ts";
import { matmulSuite } from "./suites/matmul.ts";
import { movementSuite } from "./suites/movement.ts";
import { pointwiseSuite } from "./suites/pointwise.ts";
import { reduceSuite } from "./suites/reduce.ts";
import { rowsSuite } from "./suites/rows.ts";

/**
 * Pointwise ops in float64, rounded once: equal to the reference. Sums to half a float32 ulp and what float64 sums may differ by.
 * Fused ops round their result, and softmax its exponentials, to float32: a few ulps.
 */
const DOUBLE_ARITHMETIC: Tolerances = {
  pointwise: {},
  cancelling: {},
  sums: 2 ** -23,
  fused: { relative: 2e-6, absolute: 2e-6 },
};

/**
 * float32 arithmetic: a few ulps each, sums as far off as their number and order make them. Where numbers up to 4 cancel, half an ulp
 * of 4 is left.
 */
export const SINGLE_ARITHMETIC: Tolerances = {
  pointwise: { ulps: 4, absolute: 1e-37 },
  cancelling: { ulps: 4, absolute: 2 ** -22 },
  sums: 2 ** -21,
  fused: { relative: 2e-5, absolute: 4e-6 },
};

/**
 * The one suite that every backend passes: walks the tables of ops on permuted, sliced, stepped, broadcast, empty and one-element
 * inputs, NaN and infinities included, and compares with the reference backend.
 */
export function conformance(
  name: string,
  open: () => Promise<Backend>,
  { tolerances = DOUBLE_ARITHMETIC, setting = "" }: { tolerances?: Tolerances; setting?: string } = {},
): void {
  describe(`conformance of ${name}${setting ? `, ${setting}` : ""}`, () => {
    const bench = openBench(open, tolerances);

    test("opens under its name, with nothing allocated", () => {
      expect(bench.tested.name).toBe(name);
      expect(bench.tested.live).toBe(0);
      expect(bench.tested.dtypes).toEqual(expect.arrayContaining(["float32", "int32", "bfloat16", "float16"]));
    });
    pointwiseSuite(bench);
    reduceSuite(bench);
    matmulSuite(bench);
    rowsSuite(bench);
    movementSuite(bench);
    fusedSuite(bench);
    exactnessSuite(bench);
    errorsSuite(bench);

    afterAll(() => expect(bench.tested.bytes.peak).toBeGreaterThan(0));
  });
}
