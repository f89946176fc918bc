import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { isWeightsFile, parseSize, shardIndex, splitIntoShards } from "./shards.ts";

const sizes = (...gigabytes: number[]): [string, number][] => gigabytes.map((n, i) => [`t${i}`, n * 1e9]);
const split = (tensors: [string, number][], limit: number | string): number[][] =>
  [...splitIntoShards(tensors, (bytes) => bytes, limit).values()].map((shard) => shard.map(([, bytes]) => bytes / 1e9));

describe("splitIntoShards", () => {
  // both from huggingface_hub 1.16's docstring and code
  test("fills files in order", () => {
    expect(split(sizes(6, 6, 2, 6, 2, 2), "10GB")).toEqual([[6], [6, 2], [6, 2, 2]]);
  });
  test("gives a tensor above the limit a file of its own, before what was begun", () => {
    expect(split(sizes(1, 12, 1, 9), "10GB")).toEqual([[12], [1, 1], [9]]);
  });

  test("one file has the plain name, several are numbered; nothing is one empty file", () => {
    expect([...splitIntoShards(sizes(1, 1), (n) => n, "2GB").keys()]).toEqual(["model.safetensors"]);
    expect([...splitIntoShards(sizes(1, 1), (n) => n, "1GB").keys()]).toEqual([
      "model-00001-of-00002.safetensors",
      "model-00002-of-00002.safetensors",
    ]);
    expect([...splitIntoShards([], () => 0, 1)]).toEqual([["model.safetensors", []]]);
  });

  test("every tensor is in one file, and no file of several is above the limit", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(20), { minLength: 1 }), fc.integer({ min: 1, max: 30 }), (lengths, limit) => {
        const shards = split(
          lengths.map((n, i) => [`t${i}`, n]),
          limit,
        ).map((shard) => shard.map((x) => Math.round(x * 1e9)));
        const ascending = (values: number[]): number[] => values.toSorted((a, b) => a - b);
        expect(ascending(shards.flat())).toEqual(ascending(lengths));
        for (const shard of shards) {
          if (shard.length > 1) expect(shard.reduce((a, b) => a + b)).toBeLessThanOrEqual(limit);
        }
      }),
    );
  });
});

test("an index names the file of every tensor", () => {
  const shards = splitIntoShards(sizes(1, 2), (n) => n, "2GB");
  expect(shardIndex(shards, { total_parameters: 3, total_size: 3e9 })).toEqual({
    metadata: { total_parameters: 3, total_size: 3e9 },
    weight_map: { t0: "model-00001-of-00002.safetensors", t1: "model-00002-of-00002.safetensors" },
  });
});

describe("parseSize", () => {
  test.each([
    ["5GB", 5e9],
    ["1.5 mb", 1.5e6],
    ["2KB", 2000],
    ["1TB", 1e12],
    [1234, 1234],
  ])("%j is %d bytes", (size, bytes) => expect(parseSize(size)).toBe(bytes));
  test.each(["", "5", "GB", "5GiB", "-1GB", 0, -1, NaN])("refuses %j", (size) => {
    expect(() => parseSize(size)).toThrow("maxShardSize: must be a number of bytes or a text such as");
  });
});

test.each([
  ["model.safetensors", true],
  ["model-00001-of-00002.safetensors", true],
  ["model.safetensors.index.json", true],
  ["adapter_model.safetensors", false],
  ["model-1.safetensors", false],
  ["pytorch_model.bin", false],
])("isWeightsFile(%j) is %s", (file, is) => expect(isWeightsFile(file)).toBe(is));
