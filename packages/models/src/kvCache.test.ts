import { noGrad } from "@neolog/autograd";
import { Scope, type Tensor, cat, defaultBackend, parameter, randn, setDefaultBackend, slice } from "@neolog/tensor";
import { computingBackends } from "@neolog/tensor/testing";
import fc from "fast-check";
import { beforeAll, describe, expect, test, vi } from "vitest";
import { AutoModelForCausalLM } from "./autoModel.ts";
import { BLOCK, CacheGradientError } from "./cachedPositions.ts";
import { KvCache } from "./kvCache.ts";
import { TINY_LLAMA } from "./testing.ts";

const backend = defaultBackend();
const last = (x: Tensor, n: number): Tensor => slice(x, 2, Math.max(0, x.shape[2]! - n));
const expectEqual = (actual: Tensor, expected: Tensor): void => {
  expect(actual.shape).toEqual(expected.shape);
  expect([...actual.dataSync()]).toEqual([...expected.dataSync()]);
};

describe("KvCache", () => {
  test("an update gives what the window still holds and the new positions, whatever the sizes", () => {
    const chunk = fc.oneof(
      { weight: 5, arbitrary: fc.integer({ min: 1, max: 5 }) },
      fc.integer({ max: 3 * BLOCK, min: 1 }),
    );
    const choice = fc.record({
      chunks: fc.array(chunk, { minLength: 1, maxLength: 30 }),
      window: fc.option(fc.oneof(fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 2 * BLOCK }))),
      sizes: fc.tuple(fc.integer({ min: 1, max: 2 }), fc.integer({ min: 1, max: 2 }), fc.integer({ min: 1, max: 3 })),
    });
    fc.assert(
      fc.property(choice, ({ chunks, window, sizes: [B, K, D] }) => {
        const live = backend.live;
        {
          using _scope = new Scope();
          const cache = new KvCache();
          let seen: Tensor | null = null;
          for (const [i, T] of chunks.entries()) {
            const [key, value] = [randn([B, K, T, D], 2 * i), randn([B, K, T, D], 2 * i + 1)];
            const before: Tensor | null = seen && window !== null ? last(seen, window - 1) : seen;
            seen = seen ? cat([seen, key], 2) : key;
            const all = cache.update(0, key, value, window);
            expectEqual(all.key, before ? cat([before, key], 2) : key);
            expectEqual(last(all.value, T), value);
            expectEqual(cache.at(0)!.key, window === null ? seen : last(seen, window - 1));
          }
          expect(cache.length).toBe(chunks.reduce((a, b) => a + b));
          cache.dispose();
        }
        expect(backend.live).toBe(live);
      }),
    );
  });

  test("a new position is written into room that is there: nothing is allocated, nothing moves", () => {
    const cache = new KvCache();
    const add = (T: number, window: number | null): void => {
      using _scope = new Scope();
      cache.update(0, randn([1, 2, T, 3], 1), randn([1, 2, T, 3], 2), window);
    };
    for (const window of [null, 5]) {
      add(1, window);
      const live = backend.live;
      const allocate = vi.spyOn(backend, "allocate");
      for (let t = 1; t < BLOCK; t++) add(1, window);
      expect(allocate).toHaveBeenCalledTimes(2 * (BLOCK - 1)); // the positions themselves
      expect(backend.live).toBe(live);
      allocate.mockRestore();
      cache.dispose();
    }
  });

  test("it grows by blocks, at last by a quarter, and with a window no further than that and a block", () => {
    const capacities = (window: number | null): number[] => {
      const before = backend.bytes.live;
      const cache = new KvCache();
      const seen = new Set<number>();
      for (let t = 0; t < 12 * BLOCK; t++) {
        using scope = new Scope();
        const x = randn([1, 1, 1, 1], 1);
        cache.update(0, x, x, window);
        scope[Symbol.dispose]();
        seen.add((backend.bytes.live - before) / 8 / BLOCK);
      }
      cache.dispose();
      return [...seen];
    };
    expect(capacities(null)).toEqual([1, 2, 3, 4, 6, 8, 11, 14]);
    expect(capacities(5)).toEqual([1, 2]);
  });

  test("refuses positions that are to have a gradient, and rows of another batch", () => {
    const cache = new KvCache();
    const x = parameter(randn([1, 1, 2, 3], 1));
    expect(() => cache.update(0, x, x)).toThrow(CacheGradientError);
    expect(() => cache.update(0, x, x)).toThrow(
      "KvCache: keys and values must need no gradient, got some that do; run the model inside noGrad(() => …)",
    );
    noGrad(() => cache.update(0, x, x));
    expect(cache.length).toBe(2);
    const twoRows = randn([2, 1, 1, 3], 1);
    expect(() => cache.update(0, twoRows, twoRows)).toThrow(
      "KvCache: rows, heads and their width must stay those of the first call, got [1, 1, 2, 3] and [2, 1, 1, 3]",
    );
    cache.dispose();
  });
});

describe.each(await computingBackends())("decoding on $title", ({ backend }) => {
  beforeAll(() => setDefaultBackend(backend));
  test("a step allocates no more for a longer past, but for its mask: one number a position", async () => {
    const model = AutoModelForCausalLM.fromConfig({ ...TINY_LLAMA, max_position_embeddings: 512 });
    const allocate = vi.spyOn(backend, "allocate");
    const sums: number[] = [];
    const onToken = (): void => {
      sums.push(allocate.mock.calls.reduce((sum, [, length]) => sum + length, 0));
      allocate.mockClear();
    };
    await model.generate({ input_ids: [Array.from({ length: 130 }, (_, i) => i % 23)], max_new_tokens: 31, onToken });
    const growth = sums.slice(2).map((sum, i) => sum - sums[i + 1]!);
    expect(growth).toEqual(growth.map(() => 1));
    allocate.mockRestore();
  });
});
