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
  { madd: false, threads: 1 },
  { madd: false, threads: 2 },
  { madd: true, threads: 1 },
])("attention with $threads threads, relaxed_madd: $madd", ({ madd, threads }) => {
  const engine = new Engine({ madd }, threads, Infinity);
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
