import { type Backend, Scope, type Tensor, matmul, openBackend, randn, slice, transpose } from "@neolog/tensor";
import { expectClose } from "@neolog/tensor/testing";
import { describe, test } from "vitest";

/** [batch, m, k, n]: whole texels, and some short of them. */
const SIZES = [
  [1, 8, 8, 8],
  [3, 5, 36, 68],
  [2, 1, 64, 128],
  [1, 33, 100, 4],
  [2, 3, 7, 8],
  [2, 3, 8, 7],
  [1, 6, 33, 5],
  [2, 5, 130, 9],
  [1, 1, 6, 4],
  [1, 1, 8, 7],
  [2, 1, 6, 7],
] as const;

/** Products whose operands lie in whole texels, in rows or in columns, from the start of their buffer or not. */
export function packedMatmulSuite(open: () => Promise<Backend>): void {
  describe("matmul in whole texels", () => {
    test.each(SIZES)("of %d products [%d, %d] · [.., %d]", async (batch, m, k, n) => {
      using _scope = new Scope();
      const [backend, reference] = [await open(), await openBackend("reference")];
      for (const lie of ["rows", "columns"]) {
        for (const offset of [0, 4, 3]) {
          const operand = (rows: number, columns: number, seed: number) => (on: Backend) => {
            const at = (t: Tensor): Tensor => slice(t, 2, offset, offset + (lie === "rows" ? columns : rows));
            const [r, c] = lie === "rows" ? [rows, columns] : [columns, rows];
            const t = at(randn([batch, r, c + 8], seed, "float32", on));
            return lie === "rows" ? t : transpose(t);
          };
          for (const [a, b] of [
            [operand(m, k, 1), operand(k, n, 2)],
            [(on: Backend) => randn([batch, m, k], 1, "float32", on), operand(k, n, 2)],
            [operand(m, k, 1), (on: Backend) => randn([k, n], 2, "float32", on)],
          ] as const) {
            const [found, expected] = [matmul(a(backend), b(backend)), matmul(a(reference), b(reference))];
            expectClose(await found.data(), await expected.data(), { absolute: 1e-5 * Math.sqrt(k) });
          }
        }
      }
    });
  });
}
