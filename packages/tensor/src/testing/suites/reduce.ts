import fc from "fast-check";
import { describe, test } from "vitest";
import type { Backend } from "../../backend.ts";
import { abs, equal, sub, where } from "../../ops/pointwise.ts";
import { argmax, cumsum, logSumExp, max, mean, min, sum, variance } from "../../ops/reduce.ts";
import { cast } from "../../ops/movement.ts";
import type { Tensor } from "../../tensor.ts";
import {
  type Drawn,
  drawn,
  drawnOf,
  integers,
  ordinary,
  positiveSizes,
  shapes,
  sizes,
  withSpecials,
} from "../arbitraries.ts";
import { type Bench, agree, always, elements } from "../bench.ts";

const axesOf = (rank: number): fc.Arbitrary<number[]> =>
  fc
    .subarray(Array.from({ length: rank }, (_, axis) => axis))
    .chain((axes) => fc.tuple(...axes.map((axis) => fc.constantFrom(axis, axis - rank))).map((list) => [...list]));

/** A tensor, axes of it (at times counted from the end), keepdim. */
const reducible = (size: fc.Arbitrary<number>, values: fc.Arbitrary<number>, dtype?: Drawn["dtype"]) =>
  shapes(0, 4, size).chain((shape) => fc.tuple(drawn(shape, values, dtype), axesOf(shape.length), fc.boolean()));

export function reduceSuite(bench: Bench): void {
  /** A finite sum may be off by a part of Σ |finite terms|. */
  const agreeOnSum = async (x: Drawn, reduce: (x: Tensor) => Tensor): Promise<void> => {
    const terms = await elements(() => {
      const t = x.on(bench.reference, "float64");
      return sum(where(equal(sub(t, t), 0), abs(t), 0));
    });
    await agree(bench, (backend: Backend) => reduce(x.on(backend)), { absolute: bench.tolerances.sums * terms[0]! });
  };

  describe("reductions", () => {
    test("sum", async () => {
      await always(
        reducible(sizes, withSpecials),
        ([x, axes, keepdim]) => agreeOnSum(x, (t) => sum(t, axes, keepdim)),
        150,
      );
    });
    test("sum of int32", async () => {
      await always(reducible(sizes, integers, "int32"), ([x, axes, keepdim]) =>
        agree(bench, (backend) => sum(x.on(backend), axes, keepdim)),
      );
    });
    test("sum of bfloat16", async () => {
      await always(reducible(sizes, ordinary, "bfloat16"), ([x, axes]) => agreeOnSum(x, (t) => sum(t, axes)));
    });
    test("mean", async () => {
      await always(reducible(positiveSizes, withSpecials), ([x, axes, keepdim]) =>
        agreeOnSum(x, (t) => mean(t, axes, keepdim)),
      );
    });
    test.each([
      ["max", max],
      ["min", min],
    ])("%s", async (_, reduce) => {
      await always(reducible(positiveSizes, withSpecials), ([x, axes, keepdim]) =>
        agree(bench, (backend) => reduce(x.on(backend), axes, keepdim)),
      );
      await always(reducible(positiveSizes, integers, "int32"), ([x, axes, keepdim]) =>
        agree(bench, (backend) => reduce(x.on(backend), axes, keepdim)),
      );
    });
    test("argmax gives the first maximum; NaN counts as largest", async () => {
      const few = fc.constantFrom(-1, 0, 1, NaN, Infinity, -Infinity);
      const choice = shapes(1, 4, positiveSizes).chain((shape) =>
        fc.tuple(drawn(shape, few), fc.nat(shape.length - 1)),
      );
      await always(choice, ([x, axis]) => agree(bench, (backend) => argmax(x.on(backend), axis)), 120);
    });
    test("variance", async () => {
      const choice = shapes(1, 3, positiveSizes).chain((shape) =>
        fc.tuple(drawn(shape, ordinary), fc.nat(shape.length - 1)),
      );
      await always(choice, ([x, axis]) =>
        agree(bench, (backend) => variance(x.on(backend), axis, true, 0), {
          ...bench.tolerances.fused,
          absolute: 1e-5,
        }),
      );
    });
    test("logSumExp, of infinities too", async () => {
      const values = fc.oneof(ordinary, fc.constantFrom(Infinity, -Infinity, NaN));
      const choice = shapes(1, 3, positiveSizes).chain((shape) =>
        fc.tuple(drawn(shape, values), fc.nat(shape.length - 1)),
      );
      await always(choice, ([x, axis]) =>
        agree(
          bench,
          (backend) =>
            cast(logSumExp(x.on(backend, backend === bench.reference ? "float64" : "float32"), axis), "float32"),
          {
            relative: 1e-5,
            absolute: 1e-5,
          },
        ),
      );
    });
    test("cumsum", async () => {
      await always(drawnOf(shapes(1, 3, positiveSizes), ordinary), (x) => agreeOnSum(x, (t) => cumsum(t, -1)));
    });
  });
}
