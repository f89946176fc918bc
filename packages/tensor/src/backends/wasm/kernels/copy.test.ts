import { describe, expect, test } from "vitest";
import type { Backend, View } from "../../../backend.ts";
import { tensor, zeros } from "../../../create.ts";
import type { DType, TypedArray } from "../../../dtype.ts";
import { fromBfloat16, fromFloat16, toBfloat16, toFloat16 } from "../../../half.ts";
import { contiguousLayout } from "../../../layout.ts";
import { cast, contiguous, permute, slice } from "../../../ops/movement.ts";
import { Scope } from "../../../scope.ts";
import { agree, elements } from "../../../testing/bench.ts";
import { SINGLE_ARITHMETIC } from "../../../testing/conformance.ts";
import { openBench } from "../../../testing/openBench.ts";
import { openBackend } from "../../open.ts";

const ALL_BITS = Uint16Array.from({ length: 65_536 }, (_, i) => i);

const SPECIAL = [
  0,
  -0,
  NaN,
  Infinity,
  -Infinity,
  65_504,
  65_519.99,
  65_520,
  65_536,
  -65_520,
  2 ** -14,
  2 ** -24,
  2 ** -25,
  2 ** 31,
  -(2 ** 31),
  2 ** 31 - 128,
  2 ** 32,
  3e9,
  -3e9,
  2 ** 40 + 2 ** 30,
  1e20,
  -0.9,
].map(Math.fround);

/** Every 65,521st float32 there is, what lies on and beside ties of 16-bit floats, and the ends of their ranges. */
const SAMPLES = Float32Array.from([
  ...new Float32Array(Uint32Array.from({ length: 65_551 }, (_, i) => i * 65_521).buffer),
  ...new Float32Array(Uint32Array.from({ length: 9000 }, (_, i) => 0x3f800000 + (i % 3) - 1 + 0x1000 * i).buffer),
  ...Array.from({ length: 5000 }, (_, i) => (i - 2500) * 2 ** -25),
  ...SPECIAL,
]);
const WIDTHS = [1, 3, 4, 5, 15, 16, 17, 31, 33, 64, 67];

const made = (on: Backend, shape: readonly number[], dtype: DType = "float32") => {
  const n = shape.reduce((product, d) => product * d, 1);
  const values = Array.from({ length: n }, (_, i) => ((i * 7919) % 8191) - 4096);
  if (dtype === "float32" || dtype === "int32") return tensor(values, shape, dtype, on);
  return tensor(Uint16Array.from(values, dtype === "bfloat16" ? toBfloat16 : toFloat16), shape, dtype, on);
};

describe.each([1, 2])("copies of wasm with %s threads", (threads) => {
  const bench = openBench(() => openBackend("wasm", { threads }), SINGLE_ARITHMETIC);

  const converted = (data: TypedArray, from: DType, to: DType): Promise<TypedArray> =>
    elements(() => cast(tensor(data, [data.length], from, bench.tested), to));

  test("widening 16-bit floats is exact for every bit pattern", async () => {
    expect(await converted(ALL_BITS, "bfloat16", "float32")).toEqual(Float32Array.from(ALL_BITS, fromBfloat16));
    expect(await converted(ALL_BITS, "float16", "float32")).toEqual(Float32Array.from(ALL_BITS, fromFloat16));
  });

  test.each([
    ["bfloat16", toBfloat16, fromBfloat16],
    ["float16", toFloat16, fromFloat16],
  ] as const)("narrowing to %s rounds to nearest, ties to even, and keeps NaN", async (dtype, to, from) => {
    const bits = await converted(SAMPLES, "float32", dtype);
    SAMPLES.forEach((x, i) => {
      if (x === x) expect([x, bits[i]]).toEqual([x, to(x)]);
      else if (from(bits[i]!) === from(bits[i]!)) throw new Error(`${dtype}: NaN must stay NaN, got ${bits[i]}`);
    });
  });

  test("float32 → int32 truncates, modulo 2³²", async () => {
    expect(await converted(SAMPLES, "float32", "int32")).toEqual(Int32Array.from(SAMPLES));
    const ints = Int32Array.from({ length: 1000 }, (_, i) => i * 4_294_967);
    expect(await converted(ints, "int32", "float32")).toEqual(Float32Array.from(ints));
  });

  test.each(WIDTHS)("conversions of any width and place: %s", async (n) => {
    for (const [from, to] of [
      ["float32", "bfloat16"],
      ["float32", "float16"],
      ["bfloat16", "float32"],
      ["float16", "float32"],
      ["int32", "float32"],
      ["float32", "int32"],
    ] as const) {
      await agree(bench, (on) => {
        const out = zeros([n + 9], to, on);
        const x = made(on, [n + 5], from).view("test");
        on.copy({ ...out.view("test"), layout: contiguousLayout([n], 3) }, { ...x, layout: contiguousLayout([n], 1) });
        return out;
      });
    }
  });

  test.each(WIDTHS)("transposes of [%s, n]", async (rows) => {
    for (const columns of WIDTHS)
      for (const dtype of ["float32", "int32", "bfloat16"] as const)
        await agree(bench, (on) => contiguous(permute(made(on, [rows, columns], dtype), [1, 0])));
  });

  test("transposes of batches, cut out of larger tensors", async () => {
    for (const order of [
      [0, 2, 1, 3],
      [0, 3, 1, 2],
      [3, 1, 0, 2],
      [2, 3, 0, 1],
      [1, 3, 2, 0],
    ])
      for (const dtype of ["float32", "bfloat16"] as const)
        await agree(bench, (on) => contiguous(slice(permute(made(on, [3, 7, 5, 18], dtype), order), 0, 1, 3)));
  });

  test("transposes into strides", async () => {
    await agree(bench, (on) => {
      const out = zeros([40, 24], "float32", on);
      const turned = permute(slice(out, 1, 2, 21), [1, 0]).view("test"); // [19, 40]
      on.copy(turned, made(on, [19, 40]).view("test"));
      return out;
    });
  });

  test("large copies are shared among threads", async () => {
    await agree(bench, (on) => contiguous(permute(made(on, [300, 1001]), [1, 0])));
    await agree(bench, (on) => contiguous(permute(made(on, [2, 100, 12, 64]), [0, 2, 1, 3])));
    await agree(bench, (on) => cast(made(on, [300_001]), "bfloat16"));
    await agree(bench, (on) => {
      const out = zeros([400_003], "float16", on);
      on.copy(out.view("test"), made(on, [400_003], "float16").view("test"));
      return out;
    });
  });
});

test("converts between memories", async () => {
  const backend = await openBackend("wasm", { threads: 1 });
  // weights of half size leave the first memory once 1.5 GiB of it are taken
  const filler = backend.allocate("int32", 400 << 20);
  const n = 1_200_007;
  {
    using _scope = new Scope();
    const [half, back] = [zeros([n], "bfloat16", backend), zeros([n], "float32", backend)];
    const memoryOf = (view: View) => (view.buffer as unknown as { memory: { index: number } }).memory.index;
    expect([half, back].map((t) => memoryOf(t.view("test")))).toEqual([1, 0]);
    const values = Float32Array.from({ length: n }, (_, i) => (i % 256) - 128); // what bfloat16 holds
    const x = tensor(values, [n], "float32", backend);
    backend.copy(half.view("test"), x.view("test"));
    backend.copy(back.view("test"), half.view("test"));
    expect(back.dataSync()).toEqual(values);
    const other = zeros([n], "bfloat16", backend);
    backend.copy(other.view("test"), half.view("test"));
    expect(other.dataSync()).toEqual(half.dataSync());
  }
  backend.free(filler);
  expect(backend.live).toBe(0);
});
