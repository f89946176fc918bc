import { backward } from "@neolog/autograd";
import { openGpu } from "@neolog/gpu";
import {
  Scope,
  add,
  attention,
  crossEntropy,
  layerNorm,
  mul,
  openBackend,
  rand,
  rope,
  softmax,
  square,
  sum,
  tensor,
} from "@neolog/tensor";
import { expectClose } from "@neolog/tensor/testing";
import { describe, test } from "vitest";
import { whyNoWebGpu } from "../../packages/gpu/src/webgpu/testing.ts";

const why = await whyNoWebGpu();
if (why) console.log(`skipped on webgpu: ${why}`);

describe.skipIf(why)("beyond the binding limit", () => {
  test("fused ops on arrays in several buffers are what they are on whole ones, gradients too", async () => {
    using _scope = new Scope();
    const [small, reference] = [
      await openGpu({ mode: "webgpu", allowSoftware: true, maxBindingBytes: 8192 }),
      await openBackend("reference"),
    ];
    const ids = Int32Array.from({ length: 40 }, (_, i) => (i % 4 === 3 ? -100 : 2 * i));
    const [found, expected] = [small, reference].map((backend) => {
      const of = (shape: readonly number[], seed: number) =>
        Object.assign(rand(shape, seed, "float32", backend), { requiresGrad: true });
      const [x, w, b] = [of([40, 100], 1), of([100], 2), of([100], 3)];
      const [q, k, v] = [of([1, 2, 40, 32], 4), of([1, 2, 40, 32], 5), of([1, 2, 40, 32], 6)];
      const turned = rope(q, rand([40, 16], 7, "float32", backend), rand([40, 16], 8, "float32", backend));
      const seen = attention(turned, k, v, tensor(new Int32Array(1600).fill(1), [40, 40], "int32", backend));
      const normed = softmax(layerNorm(x, w, b, 0.1));
      const loss = crossEntropy(mul(normed, 9), tensor(ids, [40], "int32", backend));
      backward(add(loss, sum(square(seen))));
      return [normed, seen, loss, ...[x, w, b, q, k, v].map((t) => t.grad!)];
    });
    for (const [i, t] of found!.entries()) expectClose(await t.data(), await expected![i]!.data(), { absolute: 2e-5 });
  });
});
