import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { CASES, type CaseName, type DataShape, trainingData } from "./trainingData.ts";

const shapes: fc.Arbitrary<DataShape> = fc.record({
  batch: fc.constantFrom(1, 2, 4, 8),
  length: fc.constantFrom(16, 64, 128),
  tokens: fc.integer({ min: 1, max: 64 }),
});
const VOCABULARY = 5003;

/** Of each sample, the position of its first trained token. */
function firstTrained(name: CaseName, shape: DataShape): (number | null)[] {
  const { batches, token_indices } = trainingData(VOCABULARY, name, shape);
  return batches.flat().map((ids) => {
    const at = ids.findIndex((id) => token_indices.includes(id));
    return at < 0 ? null : at;
  });
}

describe("the suite's training data", () => {
  test("has full batches of ids of the vocabulary, and no sample twice", () => {
    fc.assert(
      fc.property(fc.constantFrom("a", "b", "c"), shapes, (name, shape) => {
        const { batches, token_indices } = trainingData(VOCABULARY, name, shape);
        const samples = batches.flat();
        expect(batches.every((rows) => rows.length === shape.batch)).toBe(true);
        expect(samples.flat().every((id) => id >= 0 && id < VOCABULARY)).toBe(true);
        expect(samples.every((ids) => ids.length === shape.length)).toBe(true);
        expect(new Set(samples.map((ids) => ids.join())).size).toBe(samples.length);
        expect(new Set(token_indices).size).toBe(shape.tokens);
      }),
    );
  });
  test(`case a: ${CASES.a}`, () => {
    fc.assert(fc.property(shapes, (shape) => firstTrained("a", shape).every((at) => at === 0)));
  });
  test(`case b: ${CASES.b}`, () => {
    fc.assert(
      fc.property(shapes, (shape) => {
        const firsts = firstTrained("b", shape) as number[];
        const mean = firsts.reduce((sum, at) => sum + at, 0) / firsts.length;
        expect(Math.abs(mean - shape.length / 2)).toBeLessThanOrEqual(1); // positions are whole
        expect(new Set(firsts).size).toBeGreaterThan(1);
      }),
    );
  });
  test(`case c: ${CASES.c}`, () => {
    fc.assert(
      fc.property(shapes, (shape) => {
        const firsts = firstTrained("c", shape);
        expect(firsts.filter((at) => at === null)).toHaveLength(firsts.length / 2);
      }),
    );
  });
  test("has its first trained token where that is given, in all samples", () => {
    expect(firstTrained("c", { batch: 1, length: 64, tokens: 4, first: 40 })).toEqual([40, 40, 40, 40]);
  });
  test("needs a vocabulary with as many tokens that do not train", () => {
    expect(() => trainingData(8, "a", { batch: 1, length: 16, tokens: 5 })).toThrow(
      new RangeError("trainingData: 5 tokens must be at most half of 8"),
    );
  });
});
