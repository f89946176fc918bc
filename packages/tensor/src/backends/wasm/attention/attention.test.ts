import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { intTensor, tensor } from "../../../create.ts";
import type { Shape } from "../../../errors.ts";
import { contiguousLayout, sizeOf } from "../../../layout.ts";
import { attention as composite } from "../../../ops/attention.ts";
import { normalAt } from "../../../random.ts";
import { SINGLE_ARITHMETIC } from "../../../testing/conformance.ts";
import { elements } from "../../../testing/bench.ts";
import { expectClose } from "../../../testing/matchers.ts";
import { ReferenceBackend } from "../../reference/backend.ts";
import { Engine } from "../engine.ts";
import { detectFeatures, setV8Flags } from "../features.ts";
import { attention } from "../kernels/attention.ts";

setV8Flags(); // relaxed_madd on Node 20

/** q [B, H, T, D], k [B, K, S, D], v [B, K, S, E], a mask that broadcasts to [B, H, T, S]. */
interface Case {
  readonly B: number;
  readonly H: number;
  readonly K: number;
  readonly T: number;
  readonly S: number;
  readonly D: number;
  readonly E: number;
  readonly softcap: number | null;
  readonly maskShape: Shape;
  readonly allows: (index: readonly number[]) => boolean;
}
interface Given {
  readonly data: Float32Array | Int32Array;
  readonly shape: Shape;
}

/** Numbers drawn from a normal distribution. */
const drawn = (shape: Shape, seed: number): Given => ({
  data: Float32Array.from({ length: sizeOf(shape) }, (_, i) => normalAt(seed, i)),
  shape,
});

function maskOf({ maskShape, allows }: Case): Given {
  const { strides } = contiguousLayout(maskShape);
  const indexOf = (i: number): number[] => strides.map((stride, axis) => Math.floor(i / stride) % maskShape[axis]!);
  // any number but 0 allows
  return {
    data: Int32Array.from({ length: sizeOf(maskShape) }, (_, i) => (allows(indexOf(i)) ? 1 + (i % 3) * -5 : 0)),
    shape: maskShape,
  };
}

const inputsOf = (c: Case): Given[] => [
  drawn([c.B, c.H, c.T, c.D], 1),
  drawn([c.B, c.K, c.S, c.D], 2),
  drawn([c.B, c.K, c.S, c.E], 3),
  maskOf(c),
];

/** What the kernel gives; nothing stays allocated. */
function computed(engine: Engine, c: Case, inputs: readonly Given[]): Float32Array {
  const { heap } = engine;
  const before = heap.live;
  const views = inputs.map(({ data, shape }) => {
    const buffer = heap.allocate(data instanceof Int32Array ? "int32" : "float32", data.length);
    buffer.data.set(data);
    return { buffer, layout: contiguousLayout(shape) };
  });
  const shape = [c.B, c.H, c.T, c.E];
  const out = { buffer: heap.allocate("float32", sizeOf(shape)), layout: contiguousLayout(shape) };
  out.buffer.data.fill(NaN);
  attention(engine, out, views, { scale: 1 / Math.sqrt(c.D), softcap: c.softcap });
  const y = out.buffer.data.slice() as Float32Array;
  for (const { buffer } of [out, ...views]) heap.free(buffer);
  expect(heap.live).toBe(before);
  return y;
}

const reference = new ReferenceBackend();

/** What the composite gives in float64. */
function expected(c: Case, inputs: readonly Given[]): Promise<ArrayLike<number>> {
  return elements(() => {
    const [q, k, v] = inputs.slice(0, 3).map(({ data, shape }) => tensor(data, shape, "float64", reference));
    const mask = intTensor(Array.from(inputs[3]!.data), inputs[3]!.shape, reference);
    return composite(q!, k!, v!, mask, { softcap: c.softcap });
  });
}

const sizes = { B: 1, H: 2, K: 2, T: 8, S: 8, D: 8, E: 8, softcap: null };
const causal = (c: Omit<Case, "maskShape" | "allows">): Case => ({
  ...c,
  maskShape: [1, 1, c.T, c.S],
  allows: ([, , t, s]) => s! - (c.S - c.T) <= t!,
});
/** true in about three of four cases, by an arbitrary rule */
const often = (n: number): boolean => Math.imul(n + 7, 0x9e3779b1) >>> 30 !== 0;

const CASES: { readonly [name: string]: Case } = {
  ...Object.fromEntries(
    [1, 3, 4, 7, 8, 9, 15, 16, 17, 63, 64, 65, 130].map((T) => [
      `causal, T = ${T}`,
      causal({ ...sizes, T, S: T, D: 16, E: 12 }),
    ]),
  ),
  ...Object.fromEntries(
    [1, 2, 3, 4, 5, 7, 8, 9, 31, 33, 63, 64, 65, 100].map((D) => [
      `width ${D}`,
      causal({ ...sizes, T: 19, S: 21, D, E: 101 - D }),
    ]),
  ),
  "one query, 700 keys": causal({ ...sizes, B: 2, T: 1, S: 700, D: 64, E: 64 }),
  "two queries, 700 keys": causal({ ...sizes, B: 2, T: 2, S: 700, D: 64, E: 64 }),
  "one query of each of eight heads that share keys": causal({ ...sizes, H: 8, K: 1, T: 1, S: 300, D: 32, E: 32 }),
  "grouped queries": causal({ ...sizes, B: 2, H: 6, K: 2, T: 13, S: 40, D: 32, E: 24 }),
  "soft cap": causal({ ...sizes, T: 33, S: 35, D: 64, E: 64, softcap: 1.5 }),
  window: {
    ...sizes,
    T: 150,
    S: 150,
    D: 32,
    E: 32,
    maskShape: [1, 1, 150, 150],
    allows: ([, , t, s]) => s! <= t! && s! > t! - 20,
  },
  "padding of each sequence": {
    ...sizes,
    B: 3,
    T: 20,
    S: 20,
    maskShape: [3, 1, 1, 20],
    allows: ([b, , , s]) => s! >= 5 * b!,
  },
  "causal after padding, so that some may attend nowhere": {
    ...sizes,
    B: 2,
    T: 30,
    S: 30,
    maskShape: [2, 1, 30, 30],
    allows: ([b, , t, s]) => s! <= t! && s! >= 11 * b!,
  },
  "documents side by side": {
    ...sizes,
    T: 50,
    S: 50,
    maskShape: [50, 50],
    allows: ([t, s]) => s! <= t! && t! >> 4 === s! >> 4,
  },
  "holes everywhere": { ...sizes, T: 21, S: 37, maskShape: [21, 37], allows: ([t, s]) => often(37 * t! + s!) },
  "holes of each head, grouped": {
    ...sizes,
    B: 2,
    H: 6,
    T: 11,
    S: 13,
    maskShape: [2, 6, 11, 13],
    allows: (index) => often(index.reduce((n, i) => 17 * n + i, 0)),
  },
  "holes of each head, the same for all sequences": {
    ...sizes,
    B: 2,
    H: 4,
    T: 11,
    S: 13,
    maskShape: [4, 1, 13],
    allows: ([h, , s]) => often(13 * h! + s!),
  },
  "a mask of one element": { ...sizes, T: 5, S: 11, maskShape: [], allows: () => true },
  "queries that may attend everywhere or nowhere": {
    ...sizes,
    T: 13,
    S: 9,
    maskShape: [13, 1],
    allows: ([t]) => t! % 3 > 0,
  },
};

/** Each case with its inputs and what they give. */
const GIVEN = await Promise.all(
  Object.entries(CASES).map(async ([name, c]) => {
    const inputs = inputsOf(c);
    return { name, c, inputs, y: await expected(c, inputs) };
  }),
);

describe.each([
  { madd: false, threads: 1 },
  { madd: false, threads: 2 },
  { madd: true, threads: 1 },
])("attention with $threads threads, relaxed_madd: $madd", ({ madd, threads }) => {
  const engine = new Engine({ madd }, threads, Infinity);
  beforeAll(() => engine.pool.ready());
  afterAll(() => engine.pool.close());

  test.for(GIVEN)("$name", ({ c, inputs, y }, context) => {
    context.skip(madd && !detectFeatures().madd, "no relaxed_madd here");
    expectClose(computed(engine, c, inputs), y, SINGLE_ARITHMETIC.fused);
  });
});

describe("attention", () => {
  const [one, two] = [1, 2].map((threads) => new Engine({ madd: false }, threads, Infinity)) as [Engine, Engine];
  beforeAll(() => two.pool.ready());
  afterAll(() => two.pool.close());

  test("two threads give the bytes of one", () => {
    const c = causal({ ...sizes, B: 2, H: 4, K: 2, T: 130, S: 140, D: 64, E: 64 });
    const inputs = inputsOf(c);
    expect(computed(two, c, inputs)).toEqual(computed(one, c, inputs));
  });

  test("NaN and infinities of keys that a query may not attend to change no byte of it", () => {
    const c = causal({ ...sizes, T: 21, S: 30, D: 16, E: 20 });
    const [q, k, v, mask] = inputsOf(c) as [Given, Given, Given, Given];
    const poisoned = ({ data, shape }: Given, value: number): Given => {
      const key = Math.floor(data.length / c.K / c.S);
      return { shape, data: Float32Array.from(data, (x, i) => (Math.floor(i / key) % c.S === 18 ? value : x)) };
    };
    const clean = computed(one, c, [q, k, v, mask]);
    for (const value of [NaN, Infinity, -Infinity]) {
      const dirty = computed(one, c, [q, poisoned(k, value), poisoned(v, value), mask]);
      for (let row = 0; row < c.H * c.T; row++) {
        const [from, to] = [row * c.E, (row + 1) * c.E];
        // key 18 is the first that query 9 may attend to and query 8 may not
        if (row % c.T < 9) expect(dirty.subarray(from, to)).toEqual(clean.subarray(from, to));
        else expect(dirty.subarray(from, to)).not.toEqual(clean.subarray(from, to));
      }
    }
  });

  test("NaN and infinities give what they give in the composite", async () => {
    const c: Case = { ...sizes, T: 40, S: 33, maskShape: [1], allows: () => true };
    const inputs = inputsOf(c);
    const specials = [NaN, Infinity, -Infinity, 3e38, -3e38];
    for (const [i, value] of specials.entries()) {
      inputs[0]!.data[(5 * i + 1) * c.D] = value;
      const v = { ...inputs[2]!, data: inputs[2]!.data.slice() };
      v.data[3 * i] = value;
      const given = inputs.with(2, v);
      expectClose(computed(one, c, given), await expected(c, given), SINGLE_ARITHMETIC.fused);
    }
  });
});
