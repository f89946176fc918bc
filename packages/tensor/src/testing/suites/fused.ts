import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Backend } from "../../backend.ts";
import { randn, zeros } from "../../create.ts";
import type { DType } from "../../dtype.ts";
import { DerivativeError } from "../../errors.ts";
import { untracked } from "../../op.ts";
import { adamw } from "../../ops/adamw.ts";
import { attention, attentionGrad } from "../../ops/attention.ts";
import { linearCrossEntropy } from "../../ops/linearCrossEntropy.ts";
import { crossEntropy, crossEntropyGrad, mseLoss, nllLoss } from "../../ops/loss.ts";
import { matmulT } from "../../ops/matmul.ts";
import { cast, cat, contiguous, reshape, slice } from "../../ops/movement.ts";
import { layerNorm, layerNormGrad, rmsNorm, rmsNormGrad } from "../../ops/norm.ts";
import { div, mul, tanh } from "../../ops/pointwise.ts";
import { rope } from "../../ops/rope.ts";
import { overrideColumns } from "../../ops/rows.ts";
import { logSoftmax, logSoftmaxGrad, softmax, softmaxGrad } from "../../ops/softmax.ts";
import { Scope } from "../../scope.ts";
import type { Tensor } from "../../tensor.ts";
import {
  type Drawn,
  broadcastable,
  drawn,
  ordinary,
  positiveSizes,
  shapes,
  sizes,
  withSpecials,
} from "../arbitraries.ts";
import { type Bench, agree, always } from "../bench.ts";

const EPS = 1e-3;

/** q [B, H, T, D], k and v of K heads and S keys, and a mask that broadcasts to [B, H, T, S]. */
const attentionInputs = (values: fc.Arbitrary<number>) =>
  fc
    .record({ B: positiveSizes, K: fc.integer({ min: 1, max: 2 }), G: fc.integer({ min: 1, max: 3 }), T: sizes })
    .chain(({ B, K, G, T }) =>
      fc.tuple(positiveSizes, fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 6 })).chain(([D, S, E]) =>
        fc.tuple(
          drawn([B, K * G, T, D], values),
          drawn([B, K, S, D], values),
          drawn([B, K, S, E], values),
          broadcastable([B, K * G, T, S]).chain((shape) => drawn(shape, fc.nat(1), "int32")),
        ),
      ),
    );

export function fusedSuite(bench: Bench): void {
  /** What the backend computes in float32 agrees with the composite that the reference backend computes in float64. */
  const agreeWithComposite = (run: (on: (x: Drawn) => Tensor, backend: Backend) => Tensor): Promise<void> =>
    agree(
      bench,
      (backend) => {
        const float = (dtype: DType): DType => (backend === bench.reference && dtype !== "int32" ? "float64" : dtype);
        return cast(
          run((x) => x.on(backend, float(x.dtype)), backend),
          "float32",
        );
      },
      bench.tolerances.fused,
    );

  describe("fused ops agree with their composites", () => {
    test.each([
      ["softmax", softmax],
      ["logSoftmax", logSoftmax],
    ])("%s along any axis, with NaN and infinities", async (_, op) => {
      const choice = shapes(1, 4).chain((shape) => fc.tuple(drawn(shape, withSpecials), fc.nat(shape.length - 1)));
      await always(choice, ([x, axis]) => agreeWithComposite((on) => op(on(x), axis)), 100);
    });

    const rows = shapes(1, 3, positiveSizes).chain((shape) => {
      const width = [shape.at(-1)!];
      return fc.tuple(drawn(shape, withSpecials), drawn(width, ordinary), drawn(width, ordinary, "bfloat16"));
    });
    test("layerNorm", async () => {
      await always(
        rows,
        ([x, weight, bias]) => agreeWithComposite((on) => layerNorm(on(x), on(weight), on(bias), EPS)),
        100,
      );
    });
    test("rmsNorm", async () => {
      await always(rows, ([x, weight]) => agreeWithComposite((on) => rmsNorm(on(x), on(weight), EPS)), 100);
    });

    test.each([
      ["softmaxGrad", softmax, softmaxGrad],
      ["logSoftmaxGrad", logSoftmax, logSoftmaxGrad],
    ])("%s", async (_, op, gradient) => {
      const choice = shapes(1, 3, positiveSizes).chain((shape) =>
        fc.tuple(drawn(shape, ordinary), drawn(shape, withSpecials)),
      );
      await always(choice, ([x, g]) => agreeWithComposite((on) => gradient(op(on(x)), on(g))), 100);
    });

    // |g·w| ≤ 1 and a scale of 3 at most: where terms cancel, their roundings stay below the absolute tolerance
    const unit = ordinary.map((x) => Math.fround(x / 4));
    const gradients = shapes(1, 3, positiveSizes).chain((shape) =>
      fc.tuple(drawn(shape, withSpecials), drawn(shape.slice(-1), unit, "bfloat16"), drawn(shape, unit)),
    );
    test.each([
      ["layerNormGrad", layerNormGrad],
      ["rmsNormGrad", rmsNormGrad],
    ])("%s", async (_, gradient) => {
      await always(gradients, ([x, w, g]) => agreeWithComposite((on) => gradient(on(x), on(w), on(g), 0.1)), 100);
    });

    test.each([
      ["of halves", false],
      ["interleaved", true],
    ])("rope, %s, angles broadcast", async (_, interleaved) => {
      const choice = fc
        .tuple(shapes(1, 3), positiveSizes)
        .chain(([lead, half]) =>
          broadcastable([...lead, half]).chain((angles) =>
            fc.tuple(drawn([...lead, 2 * half], ordinary), drawn(angles, ordinary), drawn(angles, ordinary)),
          ),
        );
      await always(choice, ([x, cos, sin]) => agreeWithComposite((on) => rope(on(x), on(cos), on(sin), interleaved)));
    });

    test("attention, masked, with grouped queries", async () => {
      await always(
        attentionInputs(ordinary),
        ([q, k, v, mask]) => agreeWithComposite((on) => attention(on(q), on(k), on(v), on(mask))),
        120,
      );
    });
    test("attention with a scale and a soft cap", async () => {
      await always(attentionInputs(ordinary), ([q, k, v, mask]) =>
        agreeWithComposite((on) => attention(on(q), on(k), on(v), on(mask), { scale: 0.7, softcap: 2 })),
      );
    });
    test("attention with a bias", async () => {
      const biased = attentionInputs(ordinary).chain((inputs) => {
        const [q, k] = inputs;
        const scores = [...q.shape.slice(0, 3), k.shape[2]!];
        return fc.tuple(
          fc.constant(inputs),
          broadcastable(scores).chain((shape) => drawn(shape, ordinary)),
        );
      });
      await always(biased, ([[q, k, v, mask], bias]) =>
        agreeWithComposite((on) => attention(on(q), on(k), on(v), on(mask), { scale: 1, bias: on(bias) })),
      );
      await always(biased, ([[q, k, v, mask], bias]) =>
        agreeWithComposite((on, backend) => {
          const zero = backend === bench.reference ? null : zeros(bias.shape, "float32", backend);
          return attention(on(q), on(k), on(v), on(mask), { bias: zero });
        }),
      );
    });

    /**
     * With an incoming gradient, a soft cap or none, first keys that are constants, and which gradients are wanted. Numbers up to 1 keep the terms that cancel in a
     * softmax's gradient near 1, and so the tolerance a few ulps of them.
     */
    const attentionGradInputs = attentionInputs(ordinary.map((x) => Math.fround(x / 4))).chain((inputs) => {
      const [q, , v] = inputs;
      const g = drawn(
        [...q.shape.slice(0, 3), v.shape[3]!],
        ordinary.map((x) => Math.fround(x / 4)),
      );
      const wanted = fc.tuple(fc.boolean(), fc.boolean(), fc.boolean());
      const past = fc.nat(v.shape[2]!);
      return fc.tuple(fc.constant(inputs), g, fc.record({ softcap: fc.constantFrom(null, 2), wanted, past }));
    });
    test("attentionGrad, of what is wanted", async () => {
      await always(
        attentionGradInputs,
        ([[q, k, v, mask], g, options]) =>
          agreeWithComposite((on) => {
            const attrs = { scale: 0.7, ...options };
            const parts = attentionGrad(on(q), on(k), on(v), on(mask), on(g), attrs);
            parts.forEach((part, i) => expect(part !== null).toBe(attrs.wanted[i]));
            const flat = parts.flatMap((part) => (part ? [reshape(part, [part.size])] : []));
            return flat.length > 0 ? cat(flat, 0) : on(g);
          }),
        150,
      );
    });

    const classified = fc.tuple(positiveSizes, positiveSizes).chain(([N, V]) => {
      const targets = fc.oneof({ weight: 3, arbitrary: fc.nat(V - 1) }, { weight: 1, arbitrary: fc.constant(-100) });
      return fc.tuple(drawn([N, V], withSpecials), drawn([N], targets, "int32"));
    });
    test("crossEntropy, ignored rows left out, NaN when none is counted", async () => {
      await always(
        classified,
        ([logits, targets]) => agreeWithComposite((on) => crossEntropy(on(logits), on(targets))),
        120,
      );
    });
    test("crossEntropyGrad, 0 in ignored rows", async () => {
      await always(
        fc.tuple(classified, drawn([], ordinary)),
        ([[logits, targets], g]) => agreeWithComposite((on) => crossEntropyGrad(on(logits), on(targets), on(g))),
        100,
      );
    });
    test("linearCrossEntropy is the cross entropy of the product, capped, some rows overridden", async () => {
      // on both sides of a chunk of the vocabulary
      const vocab = fc.oneof(
        { weight: 4, arbitrary: fc.integer({ min: 1, max: 6 }) },
        { weight: 1, arbitrary: fc.constantFrom(2047, 2048, 2049, 4100) },
      );
      const heads = fc.tuple(positiveSizes, positiveSizes, vocab).chain(([N, D, V]) =>
        fc.tuple(
          drawn([N, D], ordinary),
          fc
            .nat()
            .map((seed) => (backend: Backend, dtype: DType) => cast(randn([V, D], seed, "float32", backend), dtype)),
          drawn([N], fc.constantFrom(-100, 0, V - 1, Math.floor(V / 2)), "int32"),
          fc.constantFrom("float32" as const, "bfloat16" as const),
          fc.option(fc.constantFrom(1.5, 30)),
          fc.uniqueArray(fc.constantFrom(0, V - 1, Math.floor(V / 2)), { maxLength: 3 }),
          fc.nat(),
        ),
      );
      await always(heads, ([hidden, weight, targets, dtype, softcap, columns, seed]) =>
        agreeWithComposite((on, backend) => {
          const x = on(hidden);
          const w = weight(backend, dtype);
          const delta = randn([columns.length, w.shape[1]!], seed, "float32", backend);
          const override = columns.length > 0 ? { rows: delta, columns: Int32Array.from(columns) } : null;
          if (backend !== bench.reference) return linearCrossEntropy(x, w, on(targets), { softcap, override });
          const product = matmulT(x, cast(w, "float64"));
          const raw = override
            ? overrideColumns(product, matmulT(x, cast(delta, "float64")), override.columns)
            : product;
          return crossEntropy(softcap === null ? raw : mul(tanh(div(raw, softcap)), softcap), on(targets));
        }),
      );
    });
    test("adamw, on rows of larger arrays and on strided ones, toward 0 or given rows", async () => {
      const rows = fc.tuple(positiveSizes, positiveSizes).chain(([n, width]) =>
        fc.record({
          arrays: fc.tuple(...Array.from({ length: 3 }, () => drawn([n, width], ordinary))),
          origin: fc.option(
            fc.constantFrom<DType>("float32", "bfloat16").chain((dtype) => drawn([n, width], ordinary, dtype)),
          ),
          numbers: fc.record({
            lr: fc.constantFrom(1e-3, 0.1),
            betas: fc.constantFrom<[number, number]>([0.9, 0.999], [0, 0.5]),
            eps: fc.constantFrom(1e-8, 0.5),
            weight_decay: fc.constantFrom(0, 0.01, 1),
            maximize: fc.boolean(),
            step: fc.constantFrom(1, 2, 1000),
          }),
          place: fc.constantFrom("whole", "rows", "strided"),
        }),
      );
      await always(rows, ({ arrays, origin, numbers, place }) =>
        agreeWithComposite((on, backend) => {
          const [p, grad, exp_avg] = arrays.map((x) => contiguous(on(x))) as [Tensor, Tensor, Tensor];
          const exp_avg_sq = mul(exp_avg, exp_avg);
          const part = (x: Tensor): Tensor =>
            place === "rows" ? slice(x, 0, 1, x.shape[0]) : place === "strided" ? slice(x, 1, 0, 1) : x;
          const toward = origin && part(on(origin));
          adamw(
            { p: part(p), grad: part(grad), exp_avg: part(exp_avg), exp_avg_sq: part(exp_avg_sq), toward },
            numbers,
          );
          expect(p.version).toBeGreaterThan(0);
          return cat(
            [p, exp_avg, exp_avg_sq].map((x) => cast(x, backend === bench.reference ? "float64" : "float32")),
            0,
          );
        }),
      );
    });
    test("a fused gradient has no derivative of its own", () => {
      using _scope = new Scope();
      const [y, g] = [zeros([2], "float32", bench.tested), zeros([2], "float32", bench.tested)];
      y.requiresGrad = true;
      expect(() => softmaxGrad(y, g)).toThrow(DerivativeError);
      expect(() => softmaxGrad(y, g)).toThrow(
        "softmaxGrad: inputs must not be tracked, got one that is: a fused gradient has no derivative of its own; detach the inputs, or call it inside noGrad",
      );
      expect(untracked(() => softmaxGrad(y, g)).tracked).toBe(false);
    });
    test("nllLoss", async () => {
      await always(classified, ([x, targets]) => agreeWithComposite((on) => nllLoss(on(x), on(targets))));
    });
    test("mseLoss", async () => {
      const pair = shapes(0, 3, positiveSizes).chain((shape) =>
        fc.tuple(drawn(shape, ordinary), drawn(shape, ordinary)),
      );
      await always(pair, ([x, y]) => agreeWithComposite((on) => mseLoss(on(x), on(y))));
    });
  });
}
