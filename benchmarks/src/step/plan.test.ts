import { describe, expect, test } from "vitest";
import { UsageError, parseOptions } from "../options.ts";
import { caseOf, planned } from "./plan.ts";
import { largestDifference } from "./rows.ts";

const plansOf = (...args: string[]) => planned(parseOptions(["step", ...args]).options);

describe("the steps that are asked for", () => {
  test("are every combination, in the usual sizes where none is given", () => {
    expect(plansOf("--shape", "gpt2", "--case", "a,b", "--length", "128,512", "--tokens", "64")).toEqual([
      { shape: "gpt2", name: "a", length: 128, batch: 1, tokens: 64 },
      { shape: "gpt2", name: "a", length: 512, batch: 1, tokens: 64 },
      { shape: "gpt2", name: "b", length: 128, batch: 1, tokens: 64 },
      { shape: "gpt2", name: "b", length: 512, batch: 1, tokens: 64 },
    ]);
  });
  test("are the acceptance matrix with --all", () => {
    const plans = plansOf("--all");
    expect(plans.map(({ shape, name }) => `${shape} ${name}`)).toEqual(
      ["gpt2", "smollm2-135m", "qwen2.5-0.5b"].flatMap((shape) => ["a", "b", "c"].map((name) => `${shape} ${name}`)),
    );
    expect(plans[0]).toMatchObject({ length: 128, batch: 1 });
    expect(plans.at(-1)).toMatchObject({ length: 512, batch: 4 });
  });
  test("that cannot be are named", () => {
    expect(() => plansOf("--shape", "gpt3")).toThrow(UsageError);
    expect(() => plansOf("--case", "d")).toThrow(new UsageError("--case must be one of a, b, c, got d"));
    expect(() => plansOf("--length", "12.5")).toThrow("--length must be a positive integer, got 12.5");
  });
});

test("a step's operations are two products a weight and token, and attention's", () => {
  const { amount } = caseOf({ shape: "gemma-2-2b", name: "a", batch: 1, length: 2, tokens: 1 });
  const [d, ff, width, keys] = [2304, 9216, 2048, 1024];
  const block = d * (width + 2 * keys) + width * d + 3 * d * ff;
  expect(amount).toBe(2 * (4 * (26 * block + 256_000 * d) + 7 * 26 * width * 2));
});

test("rows of another number differ without bound", () => {
  expect(largestDifference([1, 2], [1.5, 1.75])).toBe(0.5);
  expect(largestDifference([1], [1, 2])).toBe(Number.POSITIVE_INFINITY);
});
