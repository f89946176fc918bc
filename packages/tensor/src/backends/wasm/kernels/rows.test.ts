import { describe, expect, test } from "vitest";
import type { Backend, View } from "../../../backend.ts";
import { tensor, zeros } from "../../../create.ts";
import type { DType } from "../../../dtype.ts";
import { IndexError } from "../../../errors.ts";
import { cast } from "../../../ops/movement.ts";
import { scatterRows, takeRows } from "../../../ops/rows.ts";
import { Scope } from "../../../scope.ts";
import type { Tensor } from "../../../tensor.ts";
import { agree, elements, identical } from "../../../testing/bench.ts";
import { SINGLE_ARITHMETIC } from "../../../testing/conformance.ts";
import { openBench } from "../../../testing/openBench.ts";
import { openBackend } from "../../open.ts";
import { ReferenceBackend } from "../../reference/backend.ts";

const WIDTHS = [1, 3, 4, 5, 15, 16, 17, 63, 64, 65, 67, 768];
const SPECIAL = [NaN, Infinity, -Infinity, -0];

/** [rows, width] of numbers that every float dtype holds, special ones among them where asked for. */
const made = (on: Backend, rows: number, width: number, dtype: DType = "float32", special = false): Tensor => {
  const values = Array.from({ length: rows * width }, (_, i) =>
    special && i % 13 === 5 ? SPECIAL[i % 4]! : ((i * 7919) % 255) - 127,
  );
  return cast(tensor(values, [rows, width], "float32", on), dtype);
};
/** Row numbers below `rows` in no order, some of them negative, many of them twice. */
const rowIds = (n: number, rows: number): Int32Array =>
  Int32Array.from({ length: n }, (_, i) => (i % 7 === 3 ? -1 : (i * 31) % rows));

describe.each([1, 2])("rows of wasm with %s threads", (threads) => {
  const bench = openBench(() => openBackend("wasm", { threads }), SINGLE_ARITHMETIC);

  test.each(WIDTHS)("takes rows of width %s from tables of every dtype", async (width) => {
    for (const dtype of ["float32", "bfloat16", "float16"] as const)
      await agree(bench, (on) => takeRows(made(on, 11, width, dtype, true), rowIds(23, 11)));
    await agree(bench, (on) => takeRows(made(on, 11, width, "int32"), rowIds(23, 11)));
  });

  test.each(WIDTHS)("adds rows of width %s, in order, and leaves the others alone", async (width) => {
    await agree(bench, (on) => scatterRows(made(on, 23, width, "float32", true), rowIds(23, 11), 14));
  });

  test("rows are added in ascending order", async () => {
    const [total] = await elements(() =>
      scatterRows(tensor([2 ** 24, 1, 1, -(2 ** 24)], [4, 1], "float32", bench.tested), new Int32Array(4), 1),
    );
    expect(total).toBe(0); // 2²⁴ + 1 rounds to 2²⁴
  });

  test("large tables are shared among threads", async () => {
    await agree(bench, (on) => takeRows(made(on, 300, 768, "bfloat16"), rowIds(700, 300)));
    await agree(bench, (on) => scatterRows(made(on, 700, 768), rowIds(700, 300), 300));
  });

  test("a row of the sum has the same bytes beside any other columns", async () => {
    const rows = (width: number) =>
      scatterRows(
        tensor(
          Float32Array.from({ length: 500 * width }, (_, i) => Math.sin(Math.floor(i / width))),
          [500, width],
          "float32",
          bench.tested,
        ),
        rowIds(500, 3),
        3,
      );
    const one = await elements(() => rows(1));
    const many = await elements(() => rows(770));
    expect(Float32Array.from(many.filter((_, i) => i % 770 === 0))).toEqual(one);
    expect(Float32Array.from(many.filter((_, i) => i % 770 === 769))).toEqual(one);
    await identical(
      () => rows(770),
      () => rows(770),
    );
  });

  test("an id that is not below the number of rows is refused", () => {
    using _scope = new Scope();
    const table = made(bench.tested, 3, 4);
    const ids = tensor([0, 3], [2], "int32", bench.tested);
    expect(() => takeRows(table, ids)).toThrow(new IndexError("takeRows", "ids must be below 3", 3));
    expect(() => scatterRows(made(bench.tested, 2, 4), ids, 3)).toThrow(
      new IndexError("addRows", "ids must be below 3", 3),
    );
  });
});

test("takes rows from a table in another memory", async () => {
  const backend = await openBackend("wasm", { threads: 1 });
  // weights of half size leave the first memory once 1.5 GiB of it are taken
  const filler = backend.allocate("int32", 400 << 20);
  {
    using _scope = new Scope();
    const table = zeros([1000, 768], "bfloat16", backend);
    expect((table.view("test").buffer as View["buffer"] & { memory: { index: number } }).memory.index).toBe(1);
    backend.copy(table.view("test"), made(backend, 1000, 768).view("test"));
    const ids = rowIds(2000, 1000); // more than are staged at a time
    const reference = new ReferenceBackend();
    expect(takeRows(table, ids).dataSync()).toEqual(takeRows(made(reference, 1000, 768), ids).dataSync());
  }
  backend.free(filler);
  expect(backend.live).toBe(0);
});
