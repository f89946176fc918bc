import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { assign, full, rand, randn, tensor, zeros } from "../../create.ts";
import type { DType } from "../../dtype.ts";
import { contiguousLayout, expandLayout, sizeOf } from "../../layout.ts";
import {
  cast,
  cat,
  contiguous,
  repeatInterleave,
  reshape,
  slice,
  split,
  stack,
  transpose,
} from "../../ops/movement.ts";
import { tril, triu } from "../../ops/triangle.ts";
import { drawn, drawnOf, floats, integers, ordinary, positiveSizes, shapes } from "../arbitraries.ts";
import { type Bench, agree, always, elements, identical } from "../bench.ts";

const DTYPES: readonly DType[] = ["float32", "int32", "bfloat16", "float16"];
const pairs = DTYPES.flatMap((from) => DTYPES.map((to) => [from, to] as const));

export function movementSuite(bench: Bench): void {
  describe("movement", () => {
    test("data() gathers any strides", async () => {
      await always(drawnOf(shapes(0, 4), floats), (x) => agree(bench, (backend) => x.on(backend)), 100);
    });
    test("contiguous copies any strides", async () => {
      await always(drawnOf(shapes(0, 4), floats), (x) => agree(bench, (backend) => contiguous(x.on(backend))), 100);
    });
    test.each(pairs)("cast from %s to %s", async (from, to) => {
      const values = from === "int32" ? integers : to === "int32" ? ordinary : floats;
      await always(drawnOf(shapes(0, 3), values, from), (x) => agree(bench, (backend) => cast(x.on(backend), to)), 40);
    });
    test("reshape", async () => {
      await always(drawnOf(shapes(0, 4), floats), (x) =>
        agree(bench, (backend) => reshape(reshape(x.on(backend), [sizeOf(x.shape)]), x.shape.toReversed())),
      );
    });
    test("cat, stack and split", async () => {
      const choice = shapes(1, 3).chain((shape) =>
        fc.nat(shape.length - 1).chain((axis) =>
          fc.tuple(
            fc.constant(axis),
            fc.array(
              positiveSizes.chain((d) => drawn(shape.with(axis, d), floats)),
              { minLength: 1, maxLength: 3 },
            ),
          ),
        ),
      );
      await always(choice, async ([axis, parts]) => {
        await agree(bench, (backend) =>
          cat(
            parts.map((x) => x.on(backend)),
            axis,
          ),
        );
        await agree(bench, (backend) => stack([parts[0]!.on(backend), parts[0]!.on(backend)], axis));
        const lengths = parts.map((x) => x.shape[axis]!);
        await agree(bench, (backend) =>
          split(
            cat(
              parts.map((x) => x.on(backend)),
              axis,
            ),
            lengths,
            axis,
          ).at(-1)!,
        );
      });
    });
    test("repeatInterleave", async () => {
      await always(drawnOf(shapes(2, 3), floats), (x) =>
        agree(bench, (backend) => repeatInterleave(x.on(backend), 3, 1)),
      );
    });
    test("tril and triu", async () => {
      await always(
        fc.tuple(drawnOf(shapes(2, 3, positiveSizes), floats), fc.integer({ min: -3, max: 3 })),
        async ([x, diagonal]) => {
          await agree(bench, (backend) => tril(x.on(backend), diagonal));
          await agree(bench, (backend) => triu(x.on(backend), diagonal));
        },
      );
    });
    test("assign writes through any strides, converting", async () => {
      await always(drawn([3, 2], ordinary), (x) =>
        agree(bench, (backend) => {
          const whole = zeros([4, 7], "bfloat16", backend);
          assign(slice(slice(transpose(whole), 0, 0, 3), 1, 0, 4, 2), x.on(backend));
          return whole;
        }),
      );
    });
    test("assign reads its source before it writes", async () => {
      await agree(bench, (backend) => {
        const t = tensor([1, 2, 3, 4], [2, 2], "float32", backend);
        assign(t, transpose(t));
        return t;
      });
    });
    test("fill writes through any strides", async () => {
      await agree(bench, (backend) => {
        const t = zeros([3, 4], "float16", backend);
        backend.fill(slice(transpose(t), 0, 1, 4, 2).view("test"), 1.5);
        return t;
      });
    });
    test("a copy of a broadcast view", async () => {
      await agree(bench, (backend) => {
        const [out, x] = [zeros([2, 3, 4], "int32", backend), full([3, 1], 2.5, "float32", backend)];
        const { buffer } = x.view("test");
        backend.copy(out.view("test"), { buffer, layout: expandLayout(contiguousLayout([3, 1]), [2, 3, 4]) });
        return out;
      });
    });
  });

  describe("random", () => {
    test("depends on the seed and the position only", async () => {
      await always(fc.tuple(fc.maxSafeNat(), fc.integer({ min: 1, max: 40 })), async ([seed, n]) => {
        await agree(bench, (backend) => rand([n], seed, "float32", backend));
        await agree(bench, (backend) => randn([n], seed, "float32", backend), bench.tolerances.pointwise);
        await identical(
          () => rand([n], seed, "float32", bench.tested),
          () => slice(rand([n + 9], seed, "float32", bench.tested), 0, 0, n),
        );
      });
    });
    test("is uniform on [0, 1), and standard normal", async () => {
      const uniform = Array.from(await elements(() => rand([10_000], 1, "float32", bench.tested)));
      expect(Math.min(...uniform)).toBeGreaterThanOrEqual(0);
      expect(Math.max(...uniform)).toBeLessThan(1);
      expect(uniform.reduce((total, v) => total + v, 0) / 10_000).toBeCloseTo(0.5, 1);
      const normal = Array.from(await elements(() => randn([10_000], 1, "float32", bench.tested)));
      expect(normal.reduce((total, v) => total + v, 0) / 10_000).toBeCloseTo(0, 1);
      expect(normal.reduce((total, v) => total + v * v, 0) / 10_000).toBeCloseTo(1, 1);
    });
  });
}
