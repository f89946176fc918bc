import fc from "fast-check";
import { describe, test } from "vitest";
import type { DType } from "../../dtype.ts";
import type { Operand } from "../../op.ts";
import { cat } from "../../ops/movement.ts";
import { POINTWISE, type PointwiseName, evaluateBoth, pointwise } from "../../ops/pointwise.ts";
import { type Drawn, broadcastable, drawn, floats, integers, ordinary, shapes } from "../arbitraries.ts";
import { type Bench, agree, always } from "../bench.ts";

const names = Object.keys(POINTWISE) as PointwiseName[];
const arityOf = (name: PointwiseName): number => new Set(POINTWISE[name].match(/\b[abc]\b/g)).size;

/** One to `arity` operands of broadcastable shapes, some of them numbers, at least one a tensor. */
const operands = (arity: number, dtype: DType, values: fc.Arbitrary<number>): fc.Arbitrary<(Drawn | number)[]> =>
  shapes(0, 4).chain((shape) => {
    const whole = drawn(shape, values, dtype);
    const other = fc.oneof(
      { weight: 2, arbitrary: broadcastable(shape).chain((s) => drawn(s, values, dtype)) },
      { weight: 1, arbitrary: values },
    );
    return fc
      .tuple(fc.nat(arity - 1), whole, fc.tuple(...Array.from({ length: arity - 1 }, () => other)))
      .map(([at, first, rest]) => rest.toSpliced(at, 0, first));
  });

/** Ops whose float32 steps cancel or are amplified: 1 + erf(x) of x < 0, e to a rounded product. */
const CANCELLING: readonly PointwiseName[] = ["gelu", "geluTanh", "quickGelu", "swiglu", "geglu"];

/** True when an op of whole numbers is computed in whole numbers: no division, no fraction, no transcendental function. */
const staysWhole = (name: PointwiseName): boolean =>
  !/[/.]/.test(POINTWISE[name]) &&
  [...POINTWISE[name].matchAll(/(\w+)\(/g)].every(([, f]) =>
    ["abs", "sign", "floor", "ceil", "round", "min", "max"].includes(f!),
  );

const on =
  (backend: Bench["tested"]) =>
  (x: Drawn | number): Operand =>
    typeof x === "number" ? x : x.on(backend);

export function pointwiseSuite(bench: Bench): void {
  const values =
    bench.tolerances.denormals === "flushed" ? floats.map((x) => (Math.abs(x) < 2 ** -126 ? 0 : x)) : floats;

  describe("pointwise", () => {
    describe.each(names)("%s", (name) => {
      const tolerance =
        bench.tolerances.ops?.[name] ?? bench.tolerances[CANCELLING.includes(name) ? "cancelling" : "pointwise"];
      test("of float32 tensors and numbers", async () => {
        await always(operands(arityOf(name), "float32", values), (inputs) =>
          agree(bench, (backend) => pointwise(name, ...inputs.map(on(backend))), tolerance),
        );
      });
      test("of int32 tensors and numbers", async (context) => {
        const held = bench.tolerances.int32 !== "whole" || staysWhole(name);
        context.skip(!held, "the backend computes int32 in float32: exact where whole numbers stay whole");
        await always(
          operands(arityOf(name), "int32", integers),
          (inputs) => agree(bench, (backend) => pointwise(name, ...inputs.map(on(backend))), { absolute: 0 }),
          20,
        );
      });
    });

    test("widens bfloat16 and float16 first", async () => {
      const dtypes = fc.constantFrom<DType>("bfloat16", "float16", "float32");
      const pair = shapes(0, 3).chain((shape) => {
        const any = dtypes.chain((dtype) => drawn(shape, ordinary, dtype));
        return fc.tuple(any, any);
      });
      await always(pair, ([x, y]) =>
        agree(bench, (backend) => pointwise("mul", x.on(backend), y.on(backend)), bench.tolerances.pointwise),
      );
    });

    test("mixes int32 and float32 as float32", async () => {
      const pair = shapes(0, 3).chain((shape) =>
        fc.tuple(drawn(shape, integers, "int32"), drawn(shape, ordinary), drawn(shape, ordinary)),
      );
      await always(pair, ([condition, x, y]) =>
        agree(bench, (backend) => pointwise("where", condition.on(backend), x.on(backend), y.on(backend))),
      );
    });

    test("computes two expressions over one set of operands, of one shape or broadcast", async () => {
      const three = shapes(1, 3).chain((shape) => {
        const any = fc.oneof(fc.constant(shape), broadcastable(shape));
        const one = any.chain((s) => drawn(s, ordinary));
        return fc.tuple(drawn(shape, ordinary), one, one);
      });
      const expressions = ["c * b * (1 - a)", "c * a / (1 + exp(-a))"] as const;
      await always(
        three,
        ([x, y, g]) =>
          agree(
            bench,
            (backend) => cat(evaluateBoth("swiglu", expressions, x.on(backend), y.on(backend), g.on(backend))),
            bench.tolerances.cancelling,
          ),
        100,
      );
    });

    test("may write over one of its inputs", async () => {
      await always(drawn([3, 4], floats), (x) =>
        agree(
          bench,
          (backend) => {
            const y = pointwise("add", x.on(backend), 0);
            backend.pointwise("b - a * a", y.view("test"), [y.view("test"), 2]);
            return y;
          },
          bench.tolerances.cancelling,
        ),
      );
    });
  });
}
