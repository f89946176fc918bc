import { type Backend, Scope, add, assign, ones, reshape, slice, sum, takeRows, tensor, zeros } from "@neolog/tensor";
import { describe, expect, test } from "vitest";

/**
 * Traps of gpu.js and of drivers that give wrong numbers without a word, by the names of the rules that avoid them. The others are
 * about the text of kernels, which is one for all modes (R1, R3, R4, R9, R10, R17), or about modes that nobody gets (R8, R18).
 */
export function rulesSuite(open: () => Promise<Backend>): void {
  describe("rule", () => {
    test("R2 loops are not cut at 1,000 rounds, R15 nor at 65,535", async () => {
      using _scope = new Scope();
      const backend = await open();
      for (const n of [1500, 70_000]) {
        const ones = tensor(new Float32Array(n).fill(1), [1, n], "float32", backend);
        expect(await sum(ones, 1).data(), String(n)).toEqual(Float32Array.of(n));
      }
    });

    test("R5 an index beyond 2²³ finds its element", async () => {
      using _scope = new Scope();
      const n = 2 ** 23 + 2 ** 22 + 5;
      const data = Float32Array.from({ length: n }, (_, i) => i % 65_521);
      const moved = add(slice(tensor(data, [n], "float32", await open()), 0, 1), 1);
      const found = await moved.data();
      expect(found.findIndex((x, i) => x !== data[i + 1]! + 1)).toBe(-1);
    });

    test("R6 a table of 50,257 rows of 768 fits, and its rows are found exactly", async () => {
      using _scope = new Scope();
      const [V, D] = [50_257, 768];
      const table = Float32Array.from({ length: V * D }, (_, i) => (i % 65_521) / 7);
      const ids = [V - 1, 0, 31_415];
      const rows = await takeRows(tensor(table, [V, D], "float32", await open()), Int32Array.from(ids)).data();
      expect(rows).toEqual(Float32Array.from(ids.flatMap((id) => [...table.subarray(id * D, (id + 1) * D)])));
    });

    test("R11 a reshape, R13 and what is read, are rows one after another", async () => {
      using _scope = new Scope();
      const data = Float32Array.from({ length: 35 }, (_, i) => i);
      const x = add(tensor(data, [5, 7], "float32", await open()), 0);
      expect(await x.data()).toEqual(data);
      expect(await add(reshape(x, [7, 5]), 0).data()).toEqual(data);
      expect(await sum(reshape(x, [7, 5]), 1).data()).toEqual(Float32Array.of(10, 35, 60, 85, 110, 135, 160));
    });

    test("R14 a kernel serves shapes that grow and shrink", async () => {
      using _scope = new Scope();
      const backend = await open();
      for (const n of [3, 700, 1, 64, 5]) {
        const x = add(ones([n, 3], "float32", backend), n);
        expect(await sum(x, 0).data(), String(n)).toEqual(new Float32Array(3).fill(n * (n + 1)));
      }
    });

    test("R16 threads beyond the result write nothing", async () => {
      using _scope = new Scope();
      const backend = await open();
      const x = zeros([9], "float32", backend);
      assign(slice(x, 0, 2, 5), add(ones([3], "float32", backend), 4));
      expect(await x.data()).toEqual(Float32Array.of(0, 0, 5, 5, 5, 0, 0, 0, 0));
    });

    test("R7 a kernel takes what was written and what was computed alike, R12 and frees both", async () => {
      const backend = await open();
      const before = backend.live;
      {
        using _scope = new Scope();
        const written = tensor([1, 2, 3], [3], "float32", backend);
        const computed = add(written, written);
        expect(await add(computed, written).data()).toEqual(Float32Array.of(3, 6, 9));
      }
      expect(backend.live).toBe(before);
    });
  });
}
