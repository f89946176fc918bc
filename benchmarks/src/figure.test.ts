import { describe, expect, test } from "vitest";
import { spreadOf } from "./figure.ts";

describe("spreadOf", () => {
  test("interpolates between samples, in any order", () => {
    expect(spreadOf([5, 1, 4, 2, 3])).toEqual({ median: 3, min: 1, p10: 1.4, p90: 4.6 });
    expect(spreadOf([2, 1]).median).toBe(1.5);
  });
  test("of one sample is that sample", () => {
    expect(spreadOf([7])).toEqual({ median: 7, min: 7, p10: 7, p90: 7 });
  });
});
