import {
  type Backend,
  Scope,
  type Tensor,
  attention,
  attentionGrad,
  intTensor,
  openBackend,
  permute,
  randn,
  slice,
} from "@neolog/tensor";
import { expectClose } from "@neolog/tensor/testing";
import { describe, test } from "vitest";

/** [heads, of k and v, T, S, D]; the first is what WebGL2 takes at once, the others are more scores than it holds at a time. */
const SIZES = [
  [4, 2, 9, 13, 8],
  [4, 2, 517, 520, 4],
  [2, 2, 730, 721, 3],
] as const;

/** Attention of heads that lie beside each other in rows of q, k and v together, a window of keys open to each query. */
export function attentionSuite(open: () => Promise<Backend>): void {
  describe("attention by queries, some at a time", () => {
    test.each(SIZES)("of %d heads in %d groups, %d queries, %d keys, width %d", async (H, K, T, S, D) => {
      using _scope = new Scope();
      const heads = (on: Backend, n: number, rows: number, seed: number): Tensor =>
        permute(slice(randn([1, rows, n + 1, D], seed, "float32", on), 2, 1, n + 1), [0, 2, 1, 3]);
      const run = (on: Backend): Tensor[] => {
        const [q, k, v, g] = [heads(on, H, T, 1), heads(on, K, S, 2), heads(on, K, S, 3), heads(on, H, T, 4)];
        const window = Int32Array.from({ length: T * S }, (_, i) => {
          const [t, s] = [Math.floor(i / S), i % S];
          return Number(t !== 2 && s <= t && s > t - 100);
        });
        const mask = intTensor(window, [T, S], on);
        const gradients = [0, 6].flatMap((past) =>
          attentionGrad(q, k, v, mask, g, { scale: 0.5, softcap: 3, wanted: [true, true, true], past }),
        );
        return [attention(q, k, v, mask), ...gradients.map((x) => x!)];
      };
      const [found, expected] = [run(await open()), run(await openBackend("reference"))];
      for (const [i, x] of found.entries())
        expectClose(await x.data(), await expected[i]!.data(), { relative: 1e-5, absolute: 1e-5 });
    });
  });
}
