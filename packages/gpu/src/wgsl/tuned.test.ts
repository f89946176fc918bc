import {
  type DType,
  type Tensor,
  type View,
  abs,
  attention,
  attentionGrad,
  cast,
  cat,
  contiguous,
  contiguousLayout,
  crossEntropy,
  crossEntropyGrad,
  isStorageDType,
  layerNorm,
  layerNormGrad,
  logSoftmax,
  logSoftmaxGrad,
  matmul,
  expandLayout,
  openBackend,
  permute,
  reshape,
  rmsNorm,
  rmsNormGrad,
  softmax,
  softmaxGrad,
  tensor,
  transpose,
} from "@neolog/tensor";
import { broadcastable, drawn, ordinary, shapes } from "@neolog/tensor/testing";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { tunedFused } from "./fused.ts";
import { matmul as matmulKernel } from "./matmul.ts";
import { matmulCall } from "./matmulCall.ts";
import { openTestDevice } from "./testing.ts";
import type { TunedKernel } from "./tunedKernel.ts";

const STYLES = ["shared", "alone"] as const;
const devices = { shared: await openTestDevice("shared"), alone: await openTestDevice("alone") };
if (typeof devices.shared === "string") console.warn(`tuned WGSL kernels: skipped, ${devices.shared}`);
const reference = await openBackend("reference");

/** Roundings of a float32 sum of n terms add up like √n·ε of the sum of their sizes. */
const EPSILON = 2 ** -23;

describe.skipIf(typeof devices.shared === "string").each(STYLES)("tuned WGSL kernels, lanes %s", (style) => {
  const device = devices[style];
  const gpu = device as Exclude<typeof device, string>;
  const fused = typeof device === "string" ? {} : tunedFused(gpu);

  const onDevice = (x: Tensor): View => {
    const view = x.view("tuned");
    return gpu.view(view, reference.readSync!(view.buffer, 0, view.buffer.length));
  };
  const dense = (shape: readonly number[]): View => ({
    buffer: gpu.upload("float32", new Float32Array(shape.reduce((n, d) => n * d, 1)).fill(7)),
    layout: contiguousLayout(shape),
  });
  const close = async (out: View, expected: Tensor, tolerance: number): Promise<void> => {
    const [actual, wanted] = [await gpu.read(out.buffer), expected.dataSync()];
    expect(actual.length).toBe(wanted.length);
    for (let i = 0; i < wanted.length; i++)
      if (!(Math.abs(actual[i]! - wanted[i]!) <= tolerance))
        expect.fail(`element ${i} must be within ${tolerance} of ${wanted[i]}, got ${actual[i]}`);
  };
  const wave = (shape: readonly number[], phase: number, dtype: DType = "float32", scale = 1): Tensor => {
    const size = shape.reduce((n, d) => n * d, 1);
    const data = Float32Array.from({ length: size }, (_, i) => scale * Math.sin(i * 1.37 + phase));
    const x = tensor(data, shape, "float32", reference);
    return isStorageDType(dtype) ? cast(x, dtype) : x;
  };

  const agreesOnProduct = async (a: Tensor, b: Tensor, kernel?: TunedKernel): Promise<string> => {
    const expected = matmul(cast(a, "float64"), cast(b, "float64"));
    const sizes = matmul(abs(cast(a, "float64")), abs(cast(b, "float64")));
    const out = dense(expected.shape);
    const expanded = (x: Tensor, rows: number, columns: number): View => {
      const view = onDevice(x);
      return {
        buffer: view.buffer,
        layout: expandLayout(view.layout, [...expected.shape.slice(0, -2), rows, columns]),
      };
    };
    const [m, k] = a.shape.slice(-2) as [number, number];
    const n = b.shape.at(-1)!;
    const call = matmulCall(out, expanded(a, m, k), expanded(b, k, n), style)!;
    gpu.runTuned(kernel ? { ...call, kernel } : call);
    await close(out, expected, EPSILON * Math.sqrt(k) * Math.max(1, ...sizes.dataSync()));
    return call.kernel.key;
  };

  describe("matmul", () => {
    test.each([
      ["NN", false, false],
      ["NT", false, true],
      ["TN", true, false],
      ["TT", true, true],
    ])("%s, whole tiles and ragged ones, by fours and by ones", async (_, aTurned, bTurned) => {
      const keys = new Set<string>();
      for (const [m, n, k] of [
        [8, 12, 4],
        [100, 68, 36],
        [67, 129, 50],
      ] as const) {
        const a = aTurned ? transpose(wave([k, m], 1)) : wave([m, k], 1);
        const b = bTurned ? transpose(wave([n, k], 2)) : wave([k, n], 2);
        keys.add(await agreesOnProduct(a, b));
      }
      // by fours in tiles of two sizes, and by ones; lanes alone have one size
      expect(keys.size).toBe(style === "shared" ? 3 : 2);
    });

    test.each([
      ["bfloat16", "float32"],
      ["float32", "float16"],
      ["float16", "bfloat16"],
    ] as const)("%s times %s is unpacked in the kernel", async (a, b) => {
      await agreesOnProduct(wave([20, 24], 1, a), transpose(wave([36, 24], 2, b)));
      await agreesOnProduct(wave([5, 7], 1, a), wave([7, 3], 2, b));
    });

    test("of any strides, batches broadcast", async () => {
      const lengths = fc.integer({ min: 1, max: 9 });
      const pair = fc
        .tuple(shapes(0, 3, fc.integer({ min: 1, max: 3 })), lengths, lengths, lengths)
        .chain(([batch, m, k, n]) =>
          fc
            .tuple(broadcastable(batch), broadcastable(batch))
            .chain(([aBatch, bBatch]) =>
              fc.tuple(drawn([...aBatch, m, k], ordinary), drawn([...bBatch, k, n], ordinary)),
            ),
        );
      await fc.assert(
        fc.asyncProperty(pair, async ([a, b]) => {
          await agreesOnProduct(a.on(reference), b.on(reference));
        }),
        { numRuns: 40 },
      );
    });

    test("the largest tile, over its edges", async () => {
      const none = { dtype: "float32", vector: "none" } as const;
      const tile = { threads: 16, register: 8 } as const;
      await agreesOnProduct(
        wave([131, 35], 1),
        wave([35, 67], 2),
        matmulKernel({ a: none, b: none, stores: false, tile }),
      );
    });

    test("more than three batch axes are the plain kernel's", () => {
      const x = permute(wave([2, 3, 2, 3, 4, 4], 1), [3, 2, 1, 0, 4, 5]);
      const out = wave([3, 2, 3, 2, 4, 4], 2);
      expect(matmulCall(out.view("test"), x.view("test"), x.view("test"), style)).toBeNull();
    });
  });

  /** Runs a fused kernel on device copies of the inputs, made contiguous. */
  const run = async (
    name: keyof typeof fused,
    inputs: readonly Tensor[],
    attrs: unknown,
    expected: Tensor,
    tolerance: number,
  ): Promise<void> => {
    const out = dense(expected.shape);
    const kernel = fused[name] as (out: View, inputs: readonly View[], attrs: unknown) => void;
    kernel(
      out,
      inputs.map((x) => onDevice(contiguous(x))),
      attrs,
    );
    await close(out, expected, tolerance);
  };
  const exact = (x: Tensor): Tensor => cast(x, "float64");

  describe.each([
    ["short rows", [5, 37]],
    ["long rows", [3, 1300]],
    ["many rows", [70, 2]],
  ] as const)("%s", (_, shape) => {
    const [x, g] = [wave(shape, 1, "float32", 3), wave(shape, 2)];
    const [w, b] = [wave(shape.slice(-1), 3), wave(shape.slice(-1), 4, "bfloat16")];
    const attrs = { eps: 0.1 };
    test("softmax and its gradient", async () => {
      const [y, z] = [softmax(x), logSoftmax(x)];
      await run("softmax", [x], null, softmax(exact(x)), 1e-6);
      await run("logSoftmax", [x], null, logSoftmax(exact(x)), 4e-6);
      await run("softmaxGrad", [y, g], null, softmaxGrad(exact(y), exact(g)), 1e-6);
      await run("logSoftmaxGrad", [z, g], null, logSoftmaxGrad(exact(z), exact(g)), 2e-6);
    });
    test("norms and their gradients", async () => {
      const [X, W, B, G] = [exact(x), exact(w), exact(b), exact(g)];
      await run("layerNorm", [x, w, b], attrs, layerNorm(X, W, B, 0.1), 1e-5);
      await run("rmsNorm", [x, w], attrs, rmsNorm(X, W, 0.1), 1e-5);
      await run("layerNormGrad", [x, w, g], attrs, layerNormGrad(X, W, G, 0.1), 1e-5);
      await run("rmsNormGrad", [x, w, g], attrs, rmsNormGrad(X, W, G, 0.1), 1e-5);
    });
    test("cross entropy and its gradient, some rows ignored", async () => {
      const [rows, n] = shape;
      const ids = tensor(
        Int32Array.from({ length: rows }, (_, i) => (i % 3 === 1 ? -100 : (i * 7) % n)),
        [rows],
        "int32",
        reference,
      );
      const [one, attributes] = [tensor([0.5], [], "float32", reference), { ignoreIndex: -100 }];
      await run("crossEntropy", [x, ids], attributes, crossEntropy(exact(x), ids), 4e-6);
      await run("crossEntropyGrad", [x, ids, one], attributes, crossEntropyGrad(exact(x), ids, exact(one)), 1e-6);
    });
  });

  describe.each([
    ["one tile", { B: 1, H: 2, K: 2, T: 5, S: 5, D: 8, E: 8, softcap: null }],
    ["ragged tiles, grouped heads, a soft cap", { B: 2, H: 4, K: 2, T: 37, S: 70, D: 7, E: 35, softcap: 1.5 }],
  ] as const)("attention over %s", (_, { B, H, K, T, S, D, E, softcap }) => {
    const [q, k] = [wave([B, H, T, D], 1, "float32", 2), wave([B, K, S, D], 2)];
    const [v, g] = [wave([B, K, S, E], 3), wave([B, H, T, E], 4)];
    // causal, the first keys of the second sample forbidden, one query with nowhere to attend
    const allowed = tensor(
      Int32Array.from({ length: B * T * S }, (_, i) => {
        const [b, t, s] = [Math.floor(i / (T * S)), Math.floor(i / S) % T, i % S];
        return t !== 2 && s <= t + S - T && s >= 33 * b ? 1 : 0;
      }),
      [B, 1, T, S],
      "int32",
      reference,
    );
    const attrs = { scale: 0.3, softcap };
    const exacts = (): [Tensor, Tensor, Tensor] => [exact(q), exact(k), exact(v)];

    test("forward", async () => {
      const expected = attention(...exacts(), allowed, attrs);
      await run("attention", [q, k, v, allowed], attrs, expected, 2e-6);
    });
    test.each([
      [[true, true, true], 0],
      [[false, true, false], 0],
      [[true, false, true], 0],
      [[true, true, true], 3],
    ] as const)("the gradients wanted: %j, behind %d constant keys", async (wanted, past) => {
      const options = { ...attrs, wanted, past };
      const parts = attentionGrad(...exacts(), allowed, exact(g), options).filter((x) => x !== null);
      const expected = cat(
        parts.map((x) => reshape(x, [x.size])),
        0,
      );
      await run("attentionGrad", [q, k, v, allowed, g], options, expected, 2e-5);
    });
  });

  test("attention, and its gradients, where the arrays lie as a model's projections leave them", async () => {
    const [B, H, T, D] = [2, 4, 9, 8];
    const heads = (t: Tensor): Tensor => permute(reshape(t, [B, T, H, D]), [0, 2, 1, 3]);
    const [q, k, v, g] = [1, 2, 3, 4].map((seed) => heads(wave([B, T, H * D], seed))) as [
      Tensor,
      Tensor,
      Tensor,
      Tensor,
    ];
    const transposed = transpose(contiguous(transpose(k)));
    const causal = tensor(
      Int32Array.from({ length: T * T }, (_, i) => Number(i % T <= Math.floor(i / T))),
      [T, T],
      "int32",
      reference,
    );
    const attrs = { scale: 0.4, softcap: null };
    const wanted = [true, true, true] as const;
    for (const keys of [k, transposed]) {
      const views = [q, keys, v, transpose(causal), g].map((x) => onDevice(x));
      const allowed = transpose(causal);
      const forward = dense([B, H, T, D]);
      fused.attention!(forward, views.slice(0, 4), attrs);
      await close(forward, attention(exact(q), exact(keys), exact(v), allowed, attrs), 2e-6);
      const backward = dense([3 * B * H * T * D]);
      fused.attentionGrad!(backward, views, { ...attrs, wanted });
      const parts = attentionGrad(exact(q), exact(keys), exact(v), allowed, exact(g), { ...attrs, wanted });
      await close(
        backward,
        cat(
          parts.map((x) => reshape(x!, [x!.size])),
          0,
        ),
        2e-5,
      );
    }
  });

  test("attention over heads wider than the registers hold", async () => {
    const [q, k, v] = [wave([1, 1, 3, 4], 1), wave([1, 1, 5, 4], 2), wave([1, 1, 5, 260], 3)];
    const allowed = tensor(new Int32Array(5).fill(1), [1, 5], "int32", reference);
    const expected = attention(exact(q), exact(k), exact(v), allowed);
    await run("attention", [q, k, v, allowed], { scale: 0.5, softcap: null }, expected, 2e-6);
  });
});
