import {
  type Backend,
  Scope,
  crossEntropy,
  crossEntropyGrad,
  intTensor,
  logSoftmax,
  mul,
  openBackend,
  randn,
  tensor,
} from "@neolog/tensor";
import { expectClose } from "@neolog/tensor/testing";
import { describe, test } from "vitest";

/** Losses over rows that WebGL2 looks at in parts: whole texels, and one beyond them. */
export function longRowsSuite(open: () => Promise<Backend>): void {
  describe("losses over long rows", () => {
    test.each([4096, 5000, 5001])("of %d logits, some rows ignored", async (V) => {
      using _scope = new Scope();
      const run = (on: Backend) => {
        const logits = mul(randn([5, V], 1, "float32", on), 9);
        const ids = intTensor(Int32Array.of(0, -100, V - 1, 2048, 17), [5], on);
        const g = tensor([1.5], [], "float32", on);
        return [crossEntropy(logits, ids), crossEntropyGrad(logits, ids, g), logSoftmax(logits)];
      };
      const [found, expected] = [run(await open()), run(await openBackend("reference"))];
      for (const [i, x] of found.entries())
        expectClose(await x.data(), await expected[i]!.data(), { relative: 1e-5, absolute: 1e-6 });
    });
  });
}
