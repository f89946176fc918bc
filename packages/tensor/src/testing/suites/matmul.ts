import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { tensor } from "../../create.ts";
import type { DType } from "../../dtype.ts";
import { addMatmul, matmul, matmulT } from "../../ops/matmul.ts";
import { reshape } from "../../ops/movement.ts";
import { abs, add } from "../../ops/pointwise.ts";
import { broadcastable, drawn, ordinary, shapes, sizes, withSpecials } from "../arbitraries.ts";
import { type Bench, agree, always, elements } from "../bench.ts";
import type { Drawn } from "../arbitraries.ts";

const lengths = fc.oneof({ weight: 3, arbitrary: sizes }, { weight: 1, arbitrary: fc.integer({ min: 6, max: 19 }) });

const product = (values: fc.Arbitrary<number>, dtypes: readonly [DType, DType]) =>
  fc
    .tuple(shapes(0, 2), lengths, lengths, lengths)
    .chain(([batch, m, k, n]) =>
      fc
        .tuple(broadcastable(batch), broadcastable(batch))
        .chain(([aBatch, bBatch]) =>
          fc.tuple(drawn([...aBatch, m, k], values, dtypes[0]), drawn([...bBatch, k, n], values, dtypes[1])),
        ),
    );

export function matmulSuite(bench: Bench): void {
  const agreeOnProduct = async (a: Drawn, b: Drawn): Promise<void> => {
    const sizesOfTerms = await elements(() =>
      matmul(abs(a.on(bench.reference, "float64")), abs(b.on(bench.reference, "float64"))),
    );
    const largest = Math.max(0, ...Array.from(sizesOfTerms).filter(Number.isFinite));
    const absolute = bench.tolerances.sums * largest;
    await agree(bench, (backend) => matmul(a.on(backend), b.on(backend)), {
      absolute,
      relative: bench.tolerances.sums,
    });
  };

  describe("matmul", () => {
    test("of float32, any strides, batches broadcast", async () => {
      await always(product(withSpecials, ["float32", "float32"]), ([a, b]) => agreeOnProduct(a, b), 200);
    });
    test.each([
      ["bfloat16", "float32"],
      ["float32", "bfloat16"],
      ["float16", "float32"],
      ["float32", "float16"],
      ["bfloat16", "float16"],
    ] as const)("of %s and %s", async (a, b) => {
      await always(product(ordinary, [a, b]), ([x, y]) => agreeOnProduct(x, y), 40);
    });
    test("added to what is there, in place where the backend can", async () => {
      const some = fc.oneof(lengths, fc.integer({ min: 380, max: 390 }));
      const choice = fc
        .tuple(shapes(1, 2), some, lengths)
        .chain(([lead, k, n]) =>
          fc.tuple(drawn([...lead, n], ordinary), drawn([...lead, k], ordinary), drawn([k, n], ordinary, "bfloat16")),
        );
      await always(choice, ([sum, a, b]) =>
        agree(
          bench,
          (backend) => {
            const [x, y, total] = [a.on(backend), b.on(backend), add(sum.on(backend), 0)];
            const seen = reshape(total, [total.size]);
            expect(addMatmul(total, x, y)).toBe(false); // somebody else sees it
            seen.dispose();
            return addMatmul(total, x, y) ? total : add(total, matmul(x, y));
          },
          { absolute: 400 * bench.tolerances.sums * 16, relative: bench.tolerances.sums },
        ),
      );
    });
    test("across the edges of blocks", async () => {
      for (const [m, k, n] of [
        [1, 70, 1100],
        [70, 300, 1],
        [33, 1030, 70],
        [131, 3, 67],
      ] as const) {
        const sine = (rows: number, columns: number, phase: number): Drawn => ({
          shape: [rows, columns],
          dtype: "float32",
          on: (backend) => {
            const data = Float32Array.from({ length: rows * columns }, (_, i) => Math.sin(i * 1.7 + phase));
            return tensor(data, [rows, columns], "float32", backend);
          },
        });
        await agree(bench, (backend) => matmul(sine(m, k, 0).on(backend), sine(k, n, 1).on(backend)), {
          absolute: k * bench.tolerances.sums,
        });
        await agree(bench, (backend) => matmulT(sine(m, k, 0).on(backend), sine(n, k, 1).on(backend)), {
          absolute: k * bench.tolerances.sums,
        });
      }
    });
  });
}
