import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import type { View } from "../../../backend.ts";
import { fromBfloat16, fromFloat16, toBfloat16, toFloat16 } from "../../../half.ts";
import { contiguousLayout } from "../../../layout.ts";
import { sameBytes } from "../../../testing/matchers.ts";
import { Engine } from "../engine.ts";
import { detectFeatures } from "../features.ts";
import type { WasmBuffer } from "../heap.ts";
import { matmul } from "../kernels/matmul.ts";
import type { FloatDType } from "../widening.ts";
import { fastestTile } from "./calibrate.ts";
import { columnsOfItem } from "./gemv.ts";
import { TILES, type TileName } from "./tiles.ts";

const tiles = Object.keys(TILES) as TileName[];
const engines = [1, 2].map((threads) => new Engine(detectFeatures(), threads, Infinity));
afterAll(() => Promise.all(engines.map((engine) => engine.pool.close())));

/** A matrix cut out of a larger one, perhaps transposed there. */
interface Lying {
  readonly dtype: FloatDType;
  readonly transposed: boolean;
  /** Rows and columns of the larger matrix beyond those used, before and after them. */
  readonly around: number;
  /** Every `step`-th element of a stored row. */
  readonly step: number;
}

const lying: fc.Arbitrary<Lying> = fc.record({
  dtype: fc.constantFrom<FloatDType>("float32", "float32", "bfloat16", "float16"),
  transposed: fc.boolean(),
  around: fc.nat(3),
  step: fc.oneof({ weight: 4, arbitrary: fc.constant(1) }, { weight: 1, arbitrary: fc.constant(2) }),
});
const size = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 1, max: 20 }) },
  { weight: 2, arbitrary: fc.integer({ min: 21, max: 70 }) },
  { weight: 1, arbitrary: fc.integer({ min: 380, max: 400 }) },
);
const products = fc.record({
  m: size,
  n: size,
  k: size,
  a: lying,
  b: lying,
  tile: fc.constantFrom(...tiles),
  engine: fc.nat(engines.length - 1),
  seed: fc.nat(1e6),
});

const ROUND = {
  float32: Math.fround,
  bfloat16: (x: number) => fromBfloat16(toBfloat16(x)),
  float16: (x: number) => fromFloat16(toFloat16(x)),
};
const BITS = { float32: (x: number) => x, bfloat16: toBfloat16, float16: toFloat16 };

/** A view of a rows × columns matrix of ordinary numbers, and the numbers. */
function place(
  engine: Engine,
  rows: number,
  columns: number,
  { dtype, transposed, around, step }: Lying,
  seed: number,
) {
  const [outer, inner] = transposed ? [columns, rows] : [rows, columns];
  const width = (inner + 2 * around) * step;
  const buffer = engine.heap.allocate(dtype, (outer + 2 * around) * width);
  const numbers = Float64Array.from({ length: rows * columns }, (_, i) => ROUND[dtype](Math.sin(seed + 1.7 * i)));
  const [rowStride, columnStride] = transposed ? [step, width] : [width, step];
  const offset = around * width + around * step;
  buffer.data.fill(BITS[dtype](1e4)); // what is around must not be read into a result
  for (let i = 0; i < rows; i++)
    for (let j = 0; j < columns; j++)
      buffer.data[offset + i * rowStride + j * columnStride] = BITS[dtype](numbers[i * columns + j]!);
  const view: View = { buffer, layout: { shape: [rows, columns], strides: [rowStride, columnStride], offset } };
  return { buffer, view, numbers };
}

/** Runs matmul; calls `check` with its result and the float64 product. */
function multiply(
  { m, n, k, a, b, tile, engine: which, seed }: typeof products extends fc.Arbitrary<infer P> ? P : never,
  check: (result: Float32Array, expected: Float64Array) => void,
): void {
  const engine = engines[which]!;
  engine.tile = tile;
  const left = place(engine, m, k, a, seed);
  const right = place(engine, k, n, b, seed + 1);
  const out = engine.heap.allocate("float32", m * n);
  const layout = contiguousLayout([m, n]);
  expect(matmul(engine, { buffer: out, layout }, left.view, right.view)).toBe(true);
  const expected = new Float64Array(m * n);
  for (let i = 0; i < m; i++)
    for (let p = 0; p < k; p++)
      for (let j = 0; j < n; j++) expected[i * n + j]! += left.numbers[i * k + p]! * right.numbers[p * n + j]!;
  check(out.data.slice() as Float32Array, expected);
  for (const buffer of [left.buffer, right.buffer, out] as WasmBuffer[]) engine.heap.free(buffer);
}

test("threads get as many columns of a vector's product each, in whole cache lines, also where there are none", () => {
  const items = (columns: number, threads: number): number => Math.ceil(columns / columnsOfItem(columns, threads));
  for (const threads of [1, 2, 3, 8]) {
    expect(items(0, threads)).toBe(0);
    for (let columns = 1; columns < 9000; columns += 7) {
      const width = columnsOfItem(columns, threads);
      expect(width % 16).toBe(0);
      expect(width).toBeLessThanOrEqual(1024);
      if (threads > 1 && columns >= 128 * threads) expect(items(columns, threads)).toBeGreaterThanOrEqual(threads);
    }
  }
});

describe("matrix products", () => {
  test("2,000 of odd sizes, strides and dtypes agree with float64", () => {
    fc.assert(
      fc.property(products, (product) =>
        multiply(product, (result, expected) => {
          // |terms| ≤ 1: each of k additions and products may be off by half an ulp of the largest partial sum
          const bound = product.k * Math.sqrt(product.k) * 2 ** -23 + 2 ** -23;
          for (let i = 0; i < expected.length; i++)
            if (!(Math.abs(result[i]! - expected[i]!) <= bound))
              throw new Error(`element ${i} must be ${expected[i]} ± ${bound}, got ${result[i]}`);
        }),
      ),
      { numRuns: 2000 },
    );
    for (const engine of engines) expect(engine.heap.live).toBe(0);
  }, 120_000);

  test("have the same bytes from every tile, with one and two threads", () => {
    fc.assert(
      fc.property(products, (product) => {
        let first: Float32Array | null = null;
        for (const engine of engines.keys()) {
          for (const tile of tiles) {
            multiply({ ...product, tile, engine }, (result) => {
              first ??= result;
              if (!sameBytes(first, result)) throw new Error(`bytes must agree for tile ${tile}`);
            });
          }
        }
      }),
      { numRuns: 60 },
    );
  }, 120_000);

  // several parts of rows and, with 65 or 130 columns, several blocks of rows for two threads
  test.each([
    [1153, 65],
    [2500, 130],
    [2304, 1],
    [0, 65],
    [1153, 0],
  ])("of %i rows and %i columns agree with float64, whatever the tile", (m, n) => {
    const plain: Lying = { dtype: "float32", transposed: false, around: 1, step: 1 };
    const k = 40;
    for (const engine of engines.keys()) {
      for (const tile of tiles) {
        multiply({ m, n, k, a: plain, b: plain, tile, engine, seed: 3 }, (result, expected) => {
          const bound = k * Math.sqrt(k) * 2 ** -23;
          const worst = expected.reduce((most, x, i) => Math.max(most, Math.abs(x - result[i]!)), 0);
          expect(worst, tile).toBeLessThanOrEqual(bound);
        });
      }
    }
  });

  test("the fastest tile is one of those that multiply right", () => {
    expect(tiles).toContain(fastestTile(engines[0]!));
    expect(engines[0]!.heap.live).toBe(0);
  });
});
