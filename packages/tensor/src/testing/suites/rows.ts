import fc from "fast-check";
import { describe, test } from "vitest";
import { intTensor } from "../../create.ts";
import type { DType } from "../../dtype.ts";
import {
  gather,
  overriddenRows,
  overrideColumns,
  overrideRows,
  scatterAdd,
  scatterRows,
  takeColumns,
  takeRows,
} from "../../ops/rows.ts";
import { drawn, floats, ordinary, positiveSizes, shapes, sizes } from "../arbitraries.ts";
import { type Bench, agree, always, identical } from "../bench.ts";

/** Row ids below `count`, negative ones among them. */
const ids = (count: number, length: fc.Arbitrary<number> = fc.nat(6)): fc.Arbitrary<Int32Array> =>
  length.chain((n) =>
    fc
      .array(fc.integer({ min: -2, max: count - 1 }), { minLength: n, maxLength: n })
      .map((list) => Int32Array.from(list)),
  );

export function rowsSuite(bench: Bench): void {
  const sums = { absolute: 64 * bench.tolerances.sums };

  describe("rows", () => {
    test.each<DType>(["float32", "bfloat16", "float16", "int32"])("takeRows of %s", async (dtype) => {
      const values = dtype === "int32" ? fc.integer({ min: -9, max: 9 }) : dtype === "float32" ? floats : ordinary;
      const choice = shapes(1, 3).chain((shape) => fc.tuple(drawn(shape, values, dtype), ids(shape[0]!)));
      await always(choice, ([table, index]) => agree(bench, (backend) => takeRows(table.on(backend), index)));
    });
    test("scatterRows adds up repeated ids and leaves out negative ones", async () => {
      const choice = fc
        .tuple(shapes(1, 3), positiveSizes)
        .chain(([shape, count]) =>
          fc.tuple(drawn(shape, ordinary), ids(count, fc.constant(shape[0]!)), fc.constant(count)),
        );
      await always(choice, ([rows, index, count]) =>
        agree(bench, (backend) => scatterRows(rows.on(backend), index, count), sums),
      );
    });
    test("ids may be a tensor", async () => {
      await always(fc.tuple(drawn([4, 3], floats), ids(4)), ([table, index]) =>
        agree(bench, (backend) => takeRows(table.on(backend), intTensor(index, [index.length], backend))),
      );
    });
    test("overrideRows", async () => {
      const choice = fc
        .tuple(sizes, positiveSizes, sizes)
        .chain(([n, k, width]) =>
          fc.tuple(drawn([n, width], floats), drawn([k, width], floats), ids(k, fc.constant(n))),
        );
      await always(choice, ([x, rows, slots]) =>
        agree(bench, (backend) => overrideRows(x.on(backend), rows.on(backend), slots)),
      );
    });
    test("overriddenRows is overrideRows of takeRows, and bytes are copied", async () => {
      const choice = fc
        .tuple(sizes, positiveSizes, positiveSizes, sizes, fc.constantFrom<DType>("float32", "bfloat16"))
        .chain(([n, V, k, width, dtype]) =>
          fc.tuple(
            drawn([V, width], dtype === "float32" ? floats : ordinary, dtype),
            ids(V, fc.constant(n)),
            drawn([k, width], floats),
            ids(k, fc.constant(n)),
          ),
        );
      await always(choice, async ([table, index, rows, slots]) => {
        await agree(bench, (backend) => overriddenRows(table.on(backend), index, rows.on(backend), slots));
        await identical(
          () => overriddenRows(table.on(bench.tested), index, rows.on(bench.tested), slots),
          () => overrideRows(takeRows(table.on(bench.tested), index), rows.on(bench.tested), slots),
        );
      });
    });
    test("overrideColumns and takeColumns", async () => {
      const choice = shapes(1, 3, positiveSizes).chain((shape) => {
        const all = Array.from({ length: shape.at(-1)! }, (_, i) => i);
        return fc
          .shuffledSubarray(all, { minLength: 1 })
          .chain((columns) =>
            fc.tuple(
              drawn(shape, floats),
              drawn(shape.with(-1, columns.length), floats),
              fc.constant(Int32Array.from(columns)),
            ),
          );
      });
      await always(choice, async ([x, values, columns]) => {
        await agree(bench, (backend) => overrideColumns(x.on(backend), values.on(backend), columns));
        await agree(bench, (backend) => takeColumns(x.on(backend), columns));
      });
    });
    test("gather and scatterAdd", async () => {
      const choice = shapes(1, 3, positiveSizes).chain((shape) =>
        fc.nat(shape.length - 1).chain((axis) =>
          shapes(1, 1, positiveSizes).chain(([length]) => {
            const picked = shape.with(axis, length!);
            return fc.tuple(
              drawn(shape, ordinary),
              fc.constant(axis),
              drawn(picked, fc.nat(shape[axis]! - 1), "int32"),
              drawn(picked, ordinary),
            );
          }),
        ),
      );
      await always(choice, async ([x, axis, index, src]) => {
        await agree(bench, (backend) => gather(x.on(backend), axis, index.on(backend)));
        await agree(bench, (backend) => scatterAdd(x.on(backend), axis, index.on(backend), src.on(backend)), sums);
      });
    });
  });
}
