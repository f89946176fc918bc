import {
  type Backend,
  Scope,
  adamw,
  openBackend,
  overriddenRows,
  permute,
  randn,
  rope,
  scatterRows,
  slice,
  square,
  takeRows,
} from "@neolog/tensor";
import { expectClose } from "@neolog/tensor/testing";
import { describe, test } from "vitest";

/** Rows whose elements lie in whole texels, from the start of their buffer or not, and one where they do not. */
export function wholeTexelsSuite(open: () => Promise<Backend>): void {
  describe("rows in whole texels", () => {
    test.each([
      [16, 0],
      [16, 1],
      [6, 1],
    ])("of %d elements, %d rows beyond the start", async (D, from) => {
      using _scope = new Scope();
      const run = (on: Backend) => {
        const of = (n: number, seed: number) => slice(randn([n + from, D], seed, "float32", on), 0, from);
        const [table, rows] = [of(9, 1), of(3, 2)];
        const [ids, slots] = [Int32Array.of(4, 0, 8, -1, 4, 2), Int32Array.of(-1, 2, 0, -1, -1, 1)];
        const heads = permute(randn([2, 5, 3, D], 3, "float32", on), [0, 2, 1, 3]);
        const [cos, sin] = [of(5, 4), of(5, 5)].map((x) => slice(x, 1, 0, D / 2)) as [typeof rows, typeof rows];
        const [p, exp_avg] = [of(4, 6), of(4, 7)];
        const exp_avg_sq = slice(square(randn([4 + from, D], 8, "float32", on)), 0, from);
        adamw(
          { p, grad: of(4, 9), exp_avg, exp_avg_sq, toward: of(4, 10) },
          { lr: 0.1, betas: [0.9, 0.99], eps: 1e-6, weight_decay: 0.1, maximize: false, step: 3 },
        );
        return [
          takeRows(table, ids),
          overriddenRows(table, ids, rows, slots),
          scatterRows(of(6, 11), ids, 9),
          rope(heads, cos, sin),
          rope(heads, cos, sin, true),
          p,
          exp_avg,
          exp_avg_sq,
        ];
      };
      const [found, expected] = [run(await open()), run(await openBackend("reference"))];
      for (const [i, x] of found.entries())
        expectClose(await x.data(), await expected[i]!.data(), { relative: 2e-6, absolute: 1e-6 });
    });
  });
}
