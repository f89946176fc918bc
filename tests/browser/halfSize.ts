import type { GpuBackend } from "@neolog/gpu";
import {
  type Backend,
  Scope,
  cast,
  fromBfloat16,
  fromFloat16,
  matmulT,
  openBackend,
  randn,
  takeRows,
  tensor,
} from "@neolog/tensor";
import { expectClose } from "@neolog/tensor/testing";
import { describe, expect, test } from "vitest";

const ALL = Uint16Array.from({ length: 65_536 }, (_, i) => i);

/** 16-bit numbers that stay so on the device. */
export function halfSizeSuite(open: () => Promise<GpuBackend>): void {
  describe.each([
    ["bfloat16", fromBfloat16],
    ["float16", fromFloat16],
  ] as const)("%s on the device", (dtype, widen) => {
    test("takes two bytes, comes back as it was and is read exactly", async () => {
      using _scope = new Scope();
      const backend = await open();
      const before = backend.bytes.live;
      const x = tensor(ALL, [ALL.length], dtype, backend);
      expect(backend.bytes.live - before).toBe(2 * ALL.length);
      expect(await x.data()).toEqual(ALL);
      const found = await cast(x, "float32").data();
      // a driver may flush numbers below 2⁻¹²⁶
      const expected = Float32Array.from(ALL, widen);
      const wrong = ALL.filter((i) => !Object.is(found[i], expected[i]) && !(Math.abs(expected[i]!) < 2 ** -126));
      expect(wrong.filter((i) => !(Number.isNaN(found[i]) && Number.isNaN(expected[i])))).toEqual(new Uint16Array());
    });

    test.each([64, 30, 7])("a table of rows of %d, written whole and in pieces, gives rows and products", async (D) => {
      using _scope = new Scope();
      const V = 37;
      const table = cast(randn([V, D], 1, "float32", await openBackend("reference")), dtype);
      const bits = (await table.data()) as Uint16Array;
      const run = (on: Backend) => {
        const whole = tensor(bits, [V, D], dtype, on);
        const pieces = tensor(bits, [V, D], dtype, on);
        on.write(pieces.view("write").buffer, bits.subarray(6, 20), 6);
        const x = randn([5, D], 2, "float32", on);
        const ids = Int32Array.of(3, 36, -1, 0);
        return [whole, pieces].flatMap((w) => [cast(w, "float32"), takeRows(w, ids), matmulT(x, w)]);
      };
      const [found, expected] = [run(await open()), run(await openBackend("reference"))];
      for (const [i, t] of found.entries())
        expectClose(await t.data(), await expected[i]!.data(), { relative: 1e-6, absolute: 1e-5 });
    });
  });
}
