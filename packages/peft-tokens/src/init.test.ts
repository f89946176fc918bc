import { normalAt } from "@neolog/tensor";
import { describe, expect, test } from "vitest";
import { type InitPolicy, type RowSource, checkInit, initialRows } from "./init.ts";
import { caught, listener } from "./testing.ts";

const WIDTH = 3;
/** count rows with correlated components */
const table = (count: number): RowSource & { readonly row: (id: number) => number[] } => {
  const row = (id: number): number[] => {
    const z = (j: number): number => Math.fround(normalAt(5, id * WIDTH + j));
    return [1 + z(0), 2 * z(0) + z(1), z(2) - z(1)];
  };
  return { count, width: WIDTH, row, read: (ids) => [...ids].flatMap(row) };
};
const silent = (): void => {
  throw new Error("no warning was due");
};
const rows = (source: RowSource, ids: number[], policy: InitPolicy, seed = 0, onWarning = silent): number[][] => {
  checkInit(policy, ids, source.count);
  const values = Array.from(initialRows(source, ids, policy, seed, onWarning));
  return ids.map((_, slot) => values.slice(slot * WIDTH, (slot + 1) * WIDTH));
};
const meanOfRows = (all: number[][]): number[] =>
  Array.from({ length: WIDTH }, (_, j) => all.reduce((sum, row) => sum + row[j]!, 0) / all.length);
const covarianceOfRows = (all: number[][]): number[][] => {
  const mean = meanOfRows(all);
  return mean.map((_, i) =>
    mean.map((_, j) => all.reduce((sum, row) => sum + (row[i]! - mean[i]!) * (row[j]! - mean[j]!), 0) / all.length),
  );
};
const close = (actual: number[], expected: number[], tolerance: number): void =>
  actual.forEach((value, i) => expect(Math.abs(value - expected[i]!)).toBeLessThanOrEqual(tolerance));

describe("A-89 rows start", () => {
  const source = table(3000); // several panels
  const ids = [2999, 4, 1030];
  const others = Array.from({ length: source.count }, (_, id) => id).filter((id) => !ids.includes(id));

  test("original: as the base's", () => {
    expect(rows(source, ids, "original")).toEqual(ids.map(source.row));
  });
  test("copy: as those of other ids, which may repeat or train themselves", () => {
    expect(rows(source, ids, { kind: "copy", from: [4, 0, 4] })).toEqual([4, 0, 4].map(source.row));
  });
  test("mean: as the mean of all rows outside", () => {
    const expected = meanOfRows(others.map(source.row));
    expect(rows(source, ids, "mean")).toEqual(ids.map(() => expected));
  });
  test("description: as the mean of each list, with multiplicity", () => {
    const tokens = [[1, 1, 7], [8], [4, 2999]];
    expect(rows(source, ids, { kind: "description", tokens })).toEqual(
      tokens.map((list) => meanOfRows(list.map(source.row))),
    );
  });
  test("random: as the generator's normal numbers times std, the same for a seed", () => {
    const expected = (seed: number, std: number) =>
      ids.map((_, slot) => [0, 1, 2].map((j) => std * normalAt(seed, slot * WIDTH + j)));
    expect(rows(source, ids, "random", 7)).toEqual(expected(7, 1));
    expect(rows(source, ids, { kind: "random", std: 0.02 }, 8)).toEqual(expected(8, 0.02));
  });
  test.each(["full", "diagonal"] as const)(
    "normal, %s: as draws with the moments of the rows outside",
    (covariance) => {
      const big = table(9000);
      const many = Array.from({ length: 6000 }, (_, i) => i);
      const outside = Array.from({ length: 3000 }, (_, i) => 6000 + i).map(big.row);
      const scale = 0.25;
      const drawn = rows(big, many, { kind: "normal", covariance, scale }, 11);
      // the standard error of a mean of 6000 draws of variance ≤ 0.25 · 5.2 is 0.015, of a covariance at most 0.025
      close(meanOfRows(drawn), meanOfRows(outside), 0.06);
      covarianceOfRows(outside).forEach((row, i) => {
        const expected = row.map((value, j) => (covariance === "full" || i === j ? scale * value : 0));
        close(covarianceOfRows(drawn)[i]!, expected, 0.1);
      });
      expect(rows(big, many, { kind: "normal", covariance, scale }, 11)).toEqual(drawn);
      expect(rows(big, many, { kind: "normal", covariance, scale }, 12)).not.toEqual(drawn);
    },
  );
  test("normal, by default: hardly beside the mean", () => {
    const drawn = rows(source, ids, { kind: "normal", covariance: "full" });
    const mean = meanOfRows(others.map(source.row));
    for (const row of drawn) close(row, mean, 1e-3);
    expect(drawn[0]).not.toEqual(drawn[1]);
  });
  test("normal: exactly mean + √scale·L·z with the factor worked out by hand", () => {
    // rows ±2e₁, ±e₁+e₂ …: covariance [[4, 2], [2, 2]] = L·Lᵀ with L = [[2, 0], [1, 1]]
    const points = [
      [2, 2],
      [2, 0],
      [-2, -2],
      [-2, 0],
      [9, 9],
    ];
    const small = { count: 5, width: 2, read: (of: Int32Array) => [...of].flatMap((id) => points[id]!) };
    const policy = { kind: "normal", covariance: "full", scale: 4 } as const;
    const [a, b] = [normalAt(3, 0), normalAt(3, 1)];
    const drawn = Array.from(initialRows(small, [4], policy, 3, silent));
    close(drawn, [2 * (2 * a), 2 * (a + b)], 1e-12);
  });
  test.each(["full", "diagonal"] as const)(
    "normal, %s: as the mean, with a warning, where rows do not spread",
    (covariance) => {
      const flat = { count: 50, width: WIDTH, read: (of: Int32Array) => [...of].flatMap((id) => [id, 1, 2 * id]) };
      const { codes, onWarning } = listener();
      const drawn = rows(flat, [0, 49], { kind: "normal", covariance }, 0, onWarning as () => never);
      expect(drawn).toEqual([
        [24.5, 1, 49],
        [24.5, 1, 49],
      ]);
      expect(codes).toEqual(["COVARIANCE"]);
    },
  );
});

describe("a policy that fits no rows is refused", () => {
  const cases: [string, unknown, string, string][] = [
    ["an unknown name", "zeros", "ARGUMENT", 'init: must be "original", "random", "mean" or an object whose kind'],
    ["an unknown kind", { kind: "zeros" }, "ARGUMENT", "one of original, random, mean, description, copy, normal"],
    ["nothing", null, "ARGUMENT", "got null"],
    ["a width below 0", { kind: "random", std: -1 }, "ARGUMENT", "init: std must be above 0, got -1"],
    [
      "a scale of 0",
      { kind: "normal", covariance: "full", scale: 0 },
      "ARGUMENT",
      "init: scale must be above 0, got 0",
    ],
    ["another covariance", { kind: "normal", covariance: "low" }, "ARGUMENT", 'must be "full" or "diagonal", got low'],
    ["too few sources", { kind: "copy", from: [1] }, "ARGUMENT", "copy.from must have one entry for each of 2 ids"],
    ["a source outside", { kind: "copy", from: [1, 9] }, "INDEX_RANGE", "ids of copy.from must be in [0, 9), got 9"],
    ["too few descriptions", { kind: "description", tokens: [[1]] }, "ARGUMENT", "one entry for each of 2 ids"],
    [
      "an empty description",
      { kind: "description", tokens: [[1], []] },
      "ARGUMENT",
      "description of 5 must hold tokens",
    ],
    [
      "a circular description",
      { kind: "description", tokens: [[1], [5]] },
      "ARGUMENT",
      "must not hold 5 itself, got [5]",
    ],
    ["a description outside", { kind: "description", tokens: [[1], [-1]] }, "INDEX_RANGE", "got -1"],
  ];
  test.each(cases)("%s", async (_, policy, code, message) => {
    const error = await caught(() => checkInit(policy as InitPolicy, [3, 5], 9));
    expect(error).toMatchObject({ name: "ConfigError", code });
    expect(error.message).toContain(message);
  });
  test("a mean where every row trains", async () => {
    const error = await caught(() => checkInit("mean", [0, 1], 2));
    expect(error.message).toBe("init: mean needs rows that do not train, got all 2 ids");
  });
});
