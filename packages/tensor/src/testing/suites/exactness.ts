import fc from "fast-check";
import { type TestContext, describe, expect, test } from "vitest";
import { intTensor, ones, randn, zeros } from "../../create.ts";
import type { Shape } from "../../errors.ts";
import { attention, attentionGrad } from "../../ops/attention.ts";
import { matmul } from "../../ops/matmul.ts";
import { cat, contiguous, reshape, slice, transpose } from "../../ops/movement.ts";
import { layerNorm, rmsNorm } from "../../ops/norm.ts";
import { logSoftmax, softmax } from "../../ops/softmax.ts";
import type { Tensor } from "../../tensor.ts";
import { drawn, ordinary } from "../arbitraries.ts";
import { type Bench, always, identical } from "../bench.ts";

/** Lengths on both sides of register tiles, now and then past a block. */
const length = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 1, max: 13 }) },
  { weight: 1, arbitrary: fc.integer({ min: 60, max: 80 }) },
);

/** [start, end) inside [0, n). */
const range = (n: number): fc.Arbitrary<[number, number]> =>
  fc.nat(n - 1).chain((start) => fc.tuple(fc.constant(start), fc.integer({ min: start + 1, max: n })));

/**
 * A backend that says `exact` keeps K1 (an element of a product depends on its row, its column and their order alone, and zeros
 * appended to the inner dimension change nothing) and K2 (a row of attention, norm or softmax depends on that row and its allowed keys alone).
 */
export function exactnessSuite(bench: Bench): void {
  const onlyIfExact = (context: TestContext): void =>
    context.skip(!bench.tested.exact, "the backend does not say that it is exact");
  const random = (shape: Shape, seed: number): Tensor => randn(shape, seed, "float32", bench.tested);

  describe("exactness", () => {
    test("is declared", () => {
      expect(typeof bench.tested.exact).toBe("boolean");
    });

    const product = fc.record({ m: length, k: length, n: length, seed: fc.nat() });

    test("K1: zeros appended to the inner dimension change no byte of a product", async (context) => {
      onlyIfExact(context);
      await always(fc.tuple(product, fc.integer({ min: 1, max: 9 })), ([{ m, k, n, seed }, more]) =>
        identical(
          () => matmul(random([m, k], seed), random([k, n], seed + 1)),
          () =>
            matmul(
              cat([random([m, k], seed), zeros([m, more], "float32", bench.tested)], 1),
              cat([random([k, n], seed + 1), zeros([more, n], "float32", bench.tested)], 0),
            ),
        ),
      );
    });

    test("K1: some rows and columns of a product are computed to the same bytes", async (context) => {
      onlyIfExact(context);
      const choice = product.chain((p) => fc.tuple(fc.constant(p), range(p.m), range(p.n)));
      await always(
        choice,
        ([{ m, k, n, seed }, rows, columns]) => {
          const part = (t: Tensor) => slice(slice(t, 0, ...rows), 1, ...columns);
          return identical(
            () => part(matmul(random([m, k], seed), random([k, n], seed + 1))),
            () => matmul(slice(random([m, k], seed), 0, ...rows), slice(random([k, n], seed + 1), 1, ...columns)),
          );
        },
        150,
      );
    });

    test("K1: a product has the same bytes from any strides", async (context) => {
      onlyIfExact(context);
      const choice = fc
        .tuple(length, length, length)
        .chain(([m, k, n]) => fc.tuple(drawn([m, k], ordinary), drawn([k, n], ordinary)));
      await always(choice, ([a, b]) =>
        identical(
          () => matmul(a.on(bench.tested), b.on(bench.tested)),
          () => {
            const [x, y] = [a.on(bench.tested), b.on(bench.tested)].map((t) => cat([t], 0));
            return matmul(x!, y!);
          },
        ),
      );
    });

    const weight = (n: number) => random([n], 1);
    const rowOps: readonly [string, (x: Tensor) => Tensor][] = [
      ["softmax", (x) => softmax(x)],
      ["logSoftmax", (x) => logSoftmax(x)],
      ["rmsNorm", (x) => rmsNorm(x, weight(x.shape.at(-1)!), 1e-5)],
      ["layerNorm", (x) => layerNorm(x, weight(x.shape.at(-1)!), weight(x.shape.at(-1)!), 1e-5)],
    ];
    test.each(rowOps)("K2: some rows of %s are computed to the same bytes", async (_, op) => {
      if (!bench.tested.exact) return;
      const choice = fc
        .tuple(length, length, fc.nat())
        .chain(([m, n, seed]) => fc.tuple(fc.constant({ m, n, seed }), range(m)));
      await always(choice, ([{ m, n, seed }, rows]) =>
        identical(
          () => slice(op(random([m, n], seed)), 0, ...rows),
          () => op(slice(random([m, n], seed), 0, ...rows)),
        ),
      );
    });

    const causal = (T: number, S: number): Tensor =>
      intTensor(
        Array.from({ length: T * S }, (_, i) => Number((i % S) - (S - T) <= Math.floor(i / S))),
        [1, 1, T, S],
        bench.tested,
      );

    test("K2: some queries of attention are computed to the same bytes", async (context) => {
      onlyIfExact(context);
      const choice = fc
        .tuple(length, length, fc.nat())
        .chain(([T, D, seed]) => fc.tuple(fc.constant({ T, D, seed }), range(T)));
      await always(choice, ([{ T, D, seed }, [start, end]]) => {
        const [q, k, v] = [0, 1, 2].map((i) => () => random([2, 2, T, D], seed + i)) as [
          () => Tensor,
          () => Tensor,
          () => Tensor,
        ];
        const queries = (t: Tensor) => slice(t, 2, start, end);
        return identical(
          () => queries(attention(q(), k(), v(), causal(T, T))),
          () => attention(queries(q()), k(), v(), queries(causal(T, T))),
        );
      });
    });

    test("K2: the gradients of some queries of attention are computed to the same bytes", async (context) => {
      onlyIfExact(context);
      const choice = fc
        .tuple(length, length, fc.nat())
        .chain(([T, D, seed]) => fc.tuple(fc.constant({ T, D, seed }), range(T)));
      await always(choice, ([{ T, D, seed }, [start, end]]) => {
        const made = (i: number) => random([1, 2, T, D], seed + i);
        const queries = (t: Tensor) => slice(t, 2, start, end);
        const attrs = { scale: 0.3, softcap: null, wanted: [true, false, false] } as const;
        return identical(
          () => queries(attentionGrad(made(0), made(1), made(2), causal(T, T), made(3), attrs)[0]!),
          () => attentionGrad(queries(made(0)), made(1), made(2), queries(causal(T, T)), queries(made(3)), attrs)[0]!,
        );
      });
    });

    test("K2: masked keys, before and after the allowed ones, change no byte of attention", async (context) => {
      onlyIfExact(context);
      const choice = fc.record({ T: length, D: length, before: fc.nat(5), after: fc.nat(5), seed: fc.nat() });
      await always(choice, ({ T, D, before, after, seed }) => {
        const made = (i: number) => random([1, 2, T, D], seed + i);
        const padded = (x: Tensor) => cat([random([1, 2, before, D], 7), x, random([1, 2, after, D], 8)], 2);
        const zero = (S: number) => zeros([1, 1, T, S], "int32", bench.tested);
        return identical(
          () => attention(made(0), made(1), made(2), causal(T, T)),
          () => attention(made(0), padded(made(1)), padded(made(2)), cat([zero(before), causal(T, T), zero(after)], 3)),
        );
      });
    });

    test("attention reads keys and values where they lie in a longer cache, to the same bytes", async (context) => {
      onlyIfExact(context);
      const choice = fc.record({
        T: length,
        S: length,
        D: length,
        before: fc.nat(5),
        after: fc.nat(5),
        seed: fc.nat(),
      });
      await always(choice, ({ T, S, D, before, after, seed }) => {
        const cached = (i: number) => random([2, 3, before + S + after, D], seed + i);
        const seen = (x: Tensor) => slice(x, 2, before, before + S);
        const q = () => random([2, 6, T, D], seed);
        const all = () => ones([1, 1, T, S], "int32", bench.tested);
        return identical(
          () => attention(q(), contiguous(seen(cached(1))), contiguous(seen(cached(2))), all()),
          () => attention(q(), seen(cached(1)), seen(cached(2)), all()),
        );
      });
    });

    test("attention and its gradients read queries of all heads position by position, to the same bytes", async (context) => {
      onlyIfExact(context);
      const choice = fc.record({ T: length, D: length, skipped: fc.nat(5), past: fc.nat(5), seed: fc.nat() });
      await always(choice, ({ T, D, skipped, past, seed }) => {
        const projected = (i: number) => slice(random([2, skipped + T, 6, D], seed + i), 1, skipped);
        const queries = (i: number) => transpose(projected(i), 1, 2);
        const attrs = { scale: 0.3, softcap: null, wanted: [true, true, true], past } as const;
        const all = (q: Tensor, g: Tensor) => {
          const [k, v] = [2, 3].map((i) => random([2, 3, past + T, D], seed + i)) as [Tensor, Tensor];
          const mask = cat([ones([1, 1, T, past], "int32", bench.tested), causal(T, T)], 3);
          const parts = [attention(q, k, v, mask), ...attentionGrad(q, k, v, mask, g, attrs)];
          return cat(parts.map((x) => reshape(x!, [x!.size])));
        };
        return identical(
          () => all(contiguous(queries(0)), contiguous(queries(1))),
          () => all(queries(0), queries(1)),
        );
      });
    });
  });
}
