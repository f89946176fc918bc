import { intTensor } from "@neolog/tensor";
import { describe, expect, test } from "vitest";
import { causalMask, causalMasks, maskedPositions, textStarts, toHost } from "./inputs.ts";

const ids = (rows: number, columns: number) =>
  toHost(
    "input_ids",
    Array.from({ length: rows }, () => Array.from({ length: columns }, () => 1)),
  );

describe("toHost", () => {
  test("takes rows, a tensor and a matrix on the host for the same ids", () => {
    const matrix = { values: Int32Array.of(1, 2, 3, 4, 5, 6), rows: 2, columns: 3 };
    expect(toHost("input_ids", matrix)).toBe(matrix);
    expect(toHost("input_ids", [[1, 2, 3], [4, 5, 6]])).toEqual(matrix); // prettier-ignore
    expect(toHost("input_ids", intTensor(matrix.values, [2, 3]))).toEqual(matrix);
  });

  test("refuses a matrix whose values do not fill it", () => {
    const mustHold = "labels: values must be an Int32Array of rows · columns integers, got ";
    expect(() => toHost("labels", { values: new Int32Array(5), rows: 2, columns: 3 })).toThrow(
      `${mustHold}[2, 3] and [5]`,
    );
    expect(() => toHost("labels", { values: new Int32Array(0), rows: 0, columns: 3 })).toThrow(
      `${mustHold}[0, 3] and [0]`,
    );
    const floats = new Float32Array(2) as never;
    expect(() => toHost("labels", { values: floats, rows: 1, columns: 2 })).toThrow(`${mustHold}[1, 2] and [2]`);
  });
});

const drawn = (...args: Parameters<typeof causalMask>): string[] => {
  const mask = causalMask(...args);
  const keys = mask.shape[3]!;
  const bits = [...mask.dataSync()].join("");
  return Array.from({ length: bits.length / keys }, (_, i) => bits.slice(i * keys, (i + 1) * keys));
};

describe("causalMask", () => {
  test("a query sees itself and what is before it", () => {
    expect(drawn(ids(1, 3), 0, null, null)).toEqual(["100", "110", "111"]);
    expect(drawn(ids(1, 2), 2, null, null)).toEqual(["1110", "1111"]);
  });

  test("a window of w positions holds the query and the w − 1 before it", () => {
    expect(drawn(ids(1, 4), 0, null, 2)).toEqual(["1000", "1100", "0110", "0011"]);
    expect(drawn(ids(1, 3), 0, null, 1)).toEqual(["100", "010", "001"]);
  });

  test("with a cache the keys are the last w − 1 of the past and the new ones", () => {
    expect(drawn(ids(1, 2), 5, null, 3)).toEqual(["1110", "0111"]);
    expect(drawn(ids(1, 2), 1, null, 3)).toEqual(["110", "111"]);
    expect(drawn(ids(1, 2), 5, null, 1)).toEqual(["10", "01"]);
  });

  test("padding is seen by nobody, on either side, in the past or not", () => {
    const mask = toHost("attention_mask", [[0, 1, 1, 1], [1, 1, 1, 0]]); // prettier-ignore
    expect(drawn(ids(2, 4), 0, mask, 2)).toEqual(["0000", "0100", "0110", "0011", "1000", "1100", "0110", "0010"]);
    expect(drawn(ids(2, 2), 2, mask, 3)).toEqual(["0110", "0111", "1110", "0110"]);
    expect(drawn(ids(2, 1), 3, mask, 2)).toEqual(["11", "10"]);
  });
});

test("layers that see the same share one mask", () => {
  const maskOf = causalMasks(ids(1, 3), 4, null);
  expect(maskOf(3)).toBe(maskOf(3));
  expect(maskOf(3)).not.toBe(maskOf(4));
  expect(maskOf(7)).toBe(maskOf(null)); // as long as all there is
  expect(maskOf(6)).not.toBe(maskOf(null));
});

test("maskedPositions counts tokens alone, the cached ones too; padding stands at −1", () => {
  const mask = toHost("attention_mask", [[0, 1, 1, 1], [1, 1, 0, 0], [1, 0, 1, 1]]); // prettier-ignore
  expect([...maskedPositions(ids(3, 4), mask)]).toEqual([-1, 0, 1, 2, 0, 1, -1, -1, 0, -1, 1, 2]);
  expect([...maskedPositions(ids(3, 2), mask)]).toEqual([1, 2, -1, -1, 1, 2]);
});

test("a text of a packed row begins where positions do not go on", () => {
  const starts = (rows: number, positions: number[]) => {
    const found = textStarts(ids(rows, positions.length / rows), Int32Array.from(positions));
    return found && [...found];
  };
  expect(starts(1, [0, 1, 2, 0, 1])).toEqual([0, 0, 0, 3, 3]);
  expect(starts(2, [3, 4, 0, 5, 6, 7])).toEqual([0, 0, 2, 0, 0, 0]);
  expect(starts(2, [3, 4, 5, 5, 6, 7])).toBeNull();
});

test("a query sees nothing of another text, nor beyond its window", () => {
  const starts = Int32Array.from([0, 0, 0, 3, 3, 5]);
  expect(drawn(ids(1, 6), 0, null, null, starts)).toEqual(["100000", "110000", "111000", "000100", "000110", "000001"]);
  expect(drawn(ids(1, 6), 0, null, 2, starts)).toEqual(["100000", "110000", "011000", "000100", "000110", "000001"]);
});
