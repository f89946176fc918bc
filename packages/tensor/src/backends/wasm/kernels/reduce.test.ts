import { describe, expect, test } from "vitest";
import type { Backend } from "../../../backend.ts";
import { tensor } from "../../../create.ts";
import { slice } from "../../../ops/movement.ts";
import { argmax, max, min, sum } from "../../../ops/reduce.ts";
import type { Tensor } from "../../../tensor.ts";
import { agree, elements, identical } from "../../../testing/bench.ts";
import { SINGLE_ARITHMETIC } from "../../../testing/conformance.ts";
import { openBench } from "../../../testing/openBench.ts";
import { sameBytes } from "../../../testing/matchers.ts";
import { openBackend } from "../../open.ts";

const WIDTHS = [1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 127, 129, 257, 1023, 1025, 4100];

/** Numbers from −4 to 4 in no order. */
const numbers = (n: number): Float32Array => Float32Array.from({ length: n }, (_, i) => ((i * 7919) % 8191) / 1024 - 4);
/** The same with `special` at every place that `where` names. */
const made = (on: Backend, shape: readonly number[], special = 0, where: readonly number[] = []): Tensor => {
  const data = numbers(shape.reduce((n, d) => n * d, 1));
  for (const i of where) data[i] = special;
  return tensor(data, shape, "float32", on);
};

describe.each([1, 2])("reductions of wasm with %s threads", (threads) => {
  const bench = openBench(() => openBackend("wasm", { threads }), SINGLE_ARITHMETIC);

  /** Within two ulps of Σ |terms|; terms are about 2. */
  const sumsOf = (n: number) => ({ absolute: 2 * 2 ** -23 * 2 * n });

  test.each(WIDTHS)("along rows and columns of %s", async (n) => {
    await agree(bench, (on) => sum(made(on, [3, n]), 1), sumsOf(n));
    await agree(bench, (on) => sum(made(on, [2, n, 3]), 1), sumsOf(n));
    await agree(bench, (on) => sum(made(on, [2, 5, n]), 1), sumsOf(5));
    for (const reduce of [max, min]) {
      await agree(bench, (on) => reduce(made(on, [3, n]), 1));
      await agree(bench, (on) => reduce(made(on, [2, n, 3]), 1));
      await agree(bench, (on) => reduce(made(on, [2, 5, n]), 1));
    }
    await agree(bench, (on) => argmax(made(on, [3, n]), 1));
    await agree(bench, (on) => argmax(made(on, [n, 3]), 0));
  });

  test.each([NaN, Infinity, -Infinity])("%s anywhere in a row", async (special) => {
    for (const n of [1, 5, 64, 67, 1030])
      for (const at of [0, n >> 1, n - 1]) {
        for (const reduce of [sum, max, min]) {
          await agree(bench, (on) => reduce(made(on, [2, n], special, [at]), 1), sumsOf(n));
          await agree(bench, (on) => reduce(made(on, [n, 2], special, [at]), 0), sumsOf(n));
        }
        await agree(bench, (on) => argmax(made(on, [2, n], special, [at, n - 1, n]), 1));
      }
  });

  test("nothing to reduce, and nothing to reduce to", async () => {
    for (const shape of [[0], [3, 0], [0, 3], [2, 3, 0]])
      for (const axis of shape.keys()) await agree(bench, (on) => sum(made(on, shape), axis));
  });

  test("rows of −Infinity, and of one value", async () => {
    for (const value of [-Infinity, -0, 7])
      await agree(bench, (on) => argmax(tensor(new Float32Array(3 * 70).fill(value), [3, 70], "float32", on), 1));
  });

  test("a row's sum is the same beside any other rows, and whether threads share it or not", async () => {
    const n = 200_003; // shared in chunks where there are few rows
    await identical(
      () => slice(sum(made(bench.tested, [9, n]), 1), 0, 0, 1),
      () => sum(made(bench.tested, [1, n]), 1),
    );
  });

  test("sums of many terms keep to the tolerance", async () => {
    await agree(bench, (on) => sum(made(on, [3, 400_003])), sumsOf(400_003));
    await agree(bench, (on) => sum(made(on, [40_000, 3]), 0), sumsOf(40_000));
    const ones = (on: Backend) => tensor(new Float32Array(20_000_000).fill(0.1), [20_000_000], "float32", on);
    const [total] = await elements(() => sum(ones(bench.tested)));
    expect(Math.abs(total! / (20_000_000 * Math.fround(0.1)) - 1)).toBeLessThan(2 ** -22); // sixteen terms one after the other
  });

  test.each([max, min])("$name of many elements, NaN among them", async (reduce) => {
    await agree(bench, (on) => reduce(made(on, [400_003], 9, [399_999])));
    await agree(bench, (on) => reduce(made(on, [400_003], NaN, [7])));
    await agree(bench, (on) => reduce(made(on, [1000, 300]), 0));
  });
});

test("sums have the same bytes with any number of threads", async () => {
  const sums: Float32Array[] = [];
  for (const threads of [1, 2, 3]) {
    const backend = await openBackend("wasm", { threads });
    const all = [
      await elements(() => sum(made(backend, [1_000_003]))),
      await elements(() => sum(made(backend, [700, 513]), 0)),
      await elements(() => sum(made(backend, [700, 513]), 1)),
    ];
    sums.push(Float32Array.from(all.flatMap((x) => Array.from(x))));
  }
  for (const other of sums) expect(sameBytes(other, sums[0]!)).toBe(true);
});
