import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { attention as composite } from "../../../ops/attention.ts";
import { SINGLE_ARITHMETIC } from "../../../testing/conformance.ts";
import { expectClose } from "../../../testing/matchers.ts";
import { Engine } from "../engine.ts";
import { detectFeatures, setV8Flags } from "../features.ts";
import { attention } from "../kernels/attention.ts";
import { CASES, type Case, type Given, causal, computed, expected, inputsOf, sizes } from "./testing.ts";

setV8Flags(); // relaxed_madd on Node 20

const result = (engine: Engine, { B, H, T, D, E, softcap }: Case, inputs: readonly Given[]): Float32Array =>
  computed(engine, inputs, [B, H, T, E], (out, views) =>
    attention(engine, out, views, { scale: 1 / Math.sqrt(D), softcap }),
  );
const ofComposite = ({ softcap }: Case, inputs: readonly Given[]): Promise<ArrayLike<number>> =>
  expected(inputs, (q, k, v, mask) => composite(q!, k!, v!, mask!, { softcap }));

/** Each case with its inputs and what they give. */
const GIVEN = await Promise.all(
  Object.entries(CASES).map(async ([name, c]) => {
    const inputs = inputsOf(c);
    return { name, c, inputs, y: await ofComposite(c, inputs) };
  }),
);

describe.each([
  { madd: false, threads: 1, tile: "4x8" },
  { madd: false, threads: 2, tile: "4x8" },
  { madd: true, threads: 1, tile: "4x8" },
  { madd: false, threads: 2, tile: "6x16" },
  { madd: true, threads: 1, tile: "6x16" },
] as const)("attention with $threads threads, tiles of $tile, relaxed_madd: $madd", ({ madd, threads, tile }) => {
  const engine = new Engine({ madd }, threads, Infinity);
  engine.tile = tile;
  beforeAll(() => engine.pool.ready());
  afterAll(() => engine.pool.close());

  test.for(GIVEN)("$name", ({ c, inputs, y }, context) => {
    context.skip(madd && !detectFeatures().madd, "no relaxed_madd here");
    expectClose(result(engine, c, inputs), y, SINGLE_ARITHMETIC.fused);
  });
});

describe("attention", () => {
  const [one, two] = [1, 2].map((threads) => new Engine({ madd: false }, threads, Infinity)) as [Engine, Engine];
  beforeAll(() => two.pool.ready());
  afterAll(() => two.pool.close());

  test("two threads give the bytes of one", () => {
    const c = causal({ ...sizes, B: 2, H: 4, K: 2, T: 130, S: 140, D: 64, E: 64 });
    const inputs = inputsOf(c);
    expect(result(two, c, inputs)).toEqual(result(one, c, inputs));
  });

  test("tiles of eight rows give the bytes of tiles of four", () => {
    const eight = new Engine({ madd: false }, 1, Infinity);
    eight.tile = "6x16";
    const c = causal({ ...sizes, T: 45, S: 47, D: 30, E: 29 });
    const inputs = inputsOf(c);
    expect(result(eight, c, inputs)).toEqual(result(one, c, inputs));
  });

  test.for([null, 1.5])("a query alone has the bytes that it has among others, soft cap %j", (softcap) => {
    const c = causal({ ...sizes, T: 21, S: 37, D: 20, E: 27, softcap });
    const inputs = inputsOf(c);
    const all = result(one, c, inputs);
    const rowOf = ({ data, shape }: Given, t: number): Given => {
      const [width, T] = [shape.at(-1)!, shape.at(-2)!];
      return { data: data.filter((_, i) => Math.floor(i / width) % T === t), shape: shape.with(-2, 1) };
    };
    for (let t = 0; t < c.T; t++) {
      const alone = inputs.with(0, rowOf(inputs[0]!, t)).with(3, rowOf(inputs[3]!, t));
      const among = rowOf({ data: all, shape: [c.B, c.H, c.T, c.E] }, t);
      expect(result(one, { ...c, T: 1 }, alone)).toEqual(among.data);
    }
  });

  test("NaN and infinities of keys that a query may not attend to change no byte of it", () => {
    const c = causal({ ...sizes, T: 21, S: 30, D: 16, E: 20 });
    const [q, k, v, mask] = inputsOf(c) as [Given, Given, Given, Given];
    const poisoned = ({ data, shape }: Given, value: number): Given => {
      const key = Math.floor(data.length / c.K / c.S);
      return { shape, data: Float32Array.from(data, (x, i) => (Math.floor(i / key) % c.S === 18 ? value : x)) };
    };
    const clean = result(one, c, [q, k, v, mask]);
    for (const value of [NaN, Infinity, -Infinity]) {
      const dirty = result(one, c, [q, poisoned(k, value), poisoned(v, value), mask]);
      for (let row = 0; row < c.H * c.T; row++) {
        const [from, to] = [row * c.E, (row + 1) * c.E];
        // key 18 is the first that query 9 may attend to and query 8 may not
        if (row % c.T < 9) expect(dirty.subarray(from, to)).toEqual(clean.subarray(from, to));
        else expect(dirty.subarray(from, to)).not.toEqual(clean.subarray(from, to));
      }
    }
  });

  test("NaN of a key between those that a single query may attend to changes no byte of it", () => {
    const c: Case = { ...sizes, T: 1, S: 30, D: 16, E: 20, maskShape: [30], allows: ([s]) => s! % 7 > 0 };
    const [q, k, v, mask] = inputsOf(c) as [Given, Given, Given, Given];
    const dirty = v.data.slice();
    dirty[7 * c.E + 3] = NaN; // value 7 of the first head
    expect(result(one, c, [q, k, { ...v, data: dirty }, mask])).toEqual(result(one, c, [q, k, v, mask]));
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
      expectClose(result(one, c, given), await ofComposite(c, given), SINGLE_ARITHMETIC.fused);
    }
  });
});
