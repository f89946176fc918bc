import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend } from "../../../backend.ts";
import { tensor, zeros } from "../../../create.ts";
import type { DType } from "../../../dtype.ts";
import { contiguousLayout, expandLayout, permuteLayout, sliceLayout } from "../../../layout.ts";
import { POINTWISE, type PointwiseName, evaluate, pointwise } from "../../../ops/pointwise.ts";
import { expand, slice, transpose } from "../../../ops/movement.ts";
import { Scope } from "../../../scope.ts";
import type { Tensor } from "../../../tensor.ts";
import { type Bench, agree, identical } from "../../../testing/bench.ts";
import { SINGLE_ARITHMETIC } from "../../../testing/conformance.ts";
import { openBackend } from "../../open.ts";
import { ReferenceBackend } from "../../reference/backend.ts";

const names = Object.keys(POINTWISE) as PointwiseName[];
const arityOf = (name: PointwiseName): number => new Set(POINTWISE[name].match(/\b[abc]\b/g)).size;

/** Around one vector, four vectors, and several rounds of four. */
const WIDTHS = [1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 19, 31, 33, 63, 64, 65, 67, 200];
const SPECIAL = [NaN, Infinity, -Infinity, 0, -0, 3e38, -3e38, 1e-38, 88, -104];

/** Numbers from −4 to 4 in no order; every eleventh one of SPECIAL. */
const numbers = (n: number, seed: number): number[] =>
  Array.from({ length: n }, (_, i) => {
    const at = i + 31 * seed;
    return at % 11 === 7 ? SPECIAL[at % SPECIAL.length]! : Math.fround(((at * 7919) % 8191) / 1024 - 4);
  });
const made = (backend: Backend, shape: readonly number[], seed: number, dtype: DType = "float32"): Tensor => {
  const values = numbers(
    shape.reduce((n, d) => n * d, 1),
    seed,
  );
  return tensor(dtype === "int32" ? values.map((x) => Math.trunc(9 * x) | 0) : values, shape, dtype, backend);
};

// without flags first: they stay set for the whole process
describe.each([
  { threads: 1, v8Flags: false },
  { threads: 2, v8Flags: false },
  { threads: 2, v8Flags: true },
])("pointwise of wasm with $threads threads, V8's flags: $v8Flags", (options) => {
  let backend: Backend | null = null;
  const bench: Bench = {
    get tested() {
      return backend!;
    },
    reference: new ReferenceBackend(),
    tolerances: SINGLE_ARITHMETIC,
  };
  beforeAll(async () => {
    backend = await openBackend("wasm", options);
  });
  afterAll(() => expect(backend!.live).toBe(0));

  test.each(names)("%s of rows of any width", async (name) => {
    for (const n of WIDTHS)
      await agree(
        bench,
        (on) => pointwise(name, ...Array.from({ length: arityOf(name) }, (_, seed) => made(on, [n], seed))),
        SINGLE_ARITHMETIC.cancelling,
      );
  });

  test.each(WIDTHS)("broadcast rows, columns and scalars over [3, %s]", async (n) => {
    await agree(bench, (on) => {
      return evaluate("add", "max(a, b) + c", made(on, [3, n], 0), made(on, [n], 1), made(on, [3, 1], 2));
    });
    await agree(bench, (on) => evaluate("add", "a < b ? c : a", made(on, [3, n], 0), 0.5, made(on, [1, 1], 2)));
  });

  test.each(WIDTHS)("steps, transposes and outer loops over [2, 3, %s]", async (n) => {
    await agree(bench, (on) => {
      const a = slice(made(on, [2, 3, 2 * n], 0), 2, 1, 2 * n, 2); // steps inside
      const b = transpose(made(on, [2, n, 3], 1)); // far apart inside
      const c = expand(slice(made(on, [2, 6, n], 2), 1, 1, 6, 2), [2, 3, n]); // steps outside
      return evaluate("add", "max(a, b) - c", a, b, c);
    });
  });

  test.each(WIDTHS)("writes through strides, and leaves what is between: [3, %s]", async (n) => {
    await agree(bench, (on) => {
      const whole = zeros([n, 8], "float32", on);
      const turned = permuteLayout(sliceLayout(contiguousLayout([n, 8]), 1, 1, 3, 2), [1, 0]); // [3, n]
      const { buffer } = whole.view("test");
      const row = made(on, [n], 1).view("test");
      const x = { buffer: row.buffer, layout: expandLayout(row.layout, [3, n]) };
      on.pointwise("b - a", { buffer, layout: turned }, [x, { buffer, layout: turned }]);
      return whole;
    });
  });

  test.each(WIDTHS)("int32 of width %s", async (n) => {
    const int = (on: Backend, seed: number) => made(on, [n], seed, "int32");
    for (const expression of [
      "a * b - c",
      "a < b ? b : -c",
      "(a >= b) + (a == c) + (a != b)",
      "min(max(a, 3), b) * abs(c)",
    ])
      await agree(bench, (on) => evaluate("add", expression, int(on, 0), int(on, 1), int(on, 2)));
    await agree(bench, (on) => evaluate("div", "a / 2.5 + b", int(on, 0), 7)); // no SIMD for it
    await agree(bench, (on) => pointwise("where", int(on, 0), made(on, [n], 1), made(on, [n], 2)));
  });

  test("sums and products of int32 wrap around", async () => {
    await agree(bench, (on) => pointwise("add", tensor([2 ** 31 - 1, -(2 ** 31)], [2], "int32", on), 1));
  });

  test("min and max know NaN and the sign of 0", async () => {
    using _scope = new Scope();
    const [a, b] = [
      [0, -0, NaN, 1, -0],
      [-0, 0, 1, NaN, -0],
    ].map((list) => tensor(list, [5], "float32", backend!));
    const result = async (t: Tensor) => Array.from(await t.data());
    expect(await result(pointwise("maximum", a!, b!))).toEqual([0, 0, NaN, NaN, -0]);
    expect(await result(pointwise("minimum", a!, b!))).toEqual([-0, -0, NaN, NaN, -0]);
    expect(await result(pointwise("relu", a!))).toEqual([0, 0, NaN, 1, 0]);
    expect(await result(evaluate("add", "min(a, 0)", a!))).toEqual([0, -0, NaN, 0, -0]);
  });

  test("a condition that is a number counts as false for 0 and NaN", async () => {
    await agree(bench, (on) =>
      evaluate("add", "a ? 1 : 2", tensor([0, -0, NaN, 1e-45, -1, Infinity], [6], "float32", on)),
    );
  });

  test.each(["geluTanh", "sin", "maximum"] as const)(
    "%s of an element is the same in any place of any tensor",
    async (name) => {
      const operands = (n: number) => Array.from({ length: arityOf(name) }, (_, i) => made(backend!, [n], i));
      const part = (t: Tensor) => slice(t, 0, 0, 77);
      await identical(
        () => part(pointwise(name, ...operands(400_000))),
        () => pointwise(name, ...operands(77)),
      );
    },
  );

  test("large tensors, flat and in rows, are shared among threads", async () => {
    await agree(bench, (on) => evaluate("add", "a * 2 + 1", made(on, [400_003], 0)), SINGLE_ARITHMETIC.cancelling);
    await agree(bench, (on) => pointwise("add", made(on, [401, 1003], 0), made(on, [401, 1], 1)));
    await agree(bench, (on) => pointwise("add", transpose(made(on, [401, 1003], 0)), made(on, [401], 1)));
  });
});
