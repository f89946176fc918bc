import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { attentionGrad as composite } from "../../../ops/attention.ts";
import { cat, reshape } from "../../../ops/movement.ts";
import { expectClose } from "../../../testing/matchers.ts";
import { Engine } from "../engine.ts";
import { detectFeatures, setV8Flags } from "../features.ts";
import { attentionGrad } from "../kernels/attentionGrad.ts";
import { CASES, type Case, type Given, causal, computed, drawn, expected, inputsOf, sizes } from "./testing.ts";

setV8Flags(); // relaxed_madd on Node 20

type Wanted = readonly [q: boolean, k: boolean, v: boolean];
const ALL: Wanted = [true, true, true];

const withGradient = (c: Case): Given[] => [...inputsOf(c), drawn([c.B, c.H, c.T, c.E], 4)];

/** The parts by q, by k and by v, of each query head, of gradients that lie one after the other; empty where not wanted. */
function parts<A extends Float32Array | Float64Array>({ B, H, T, S, D, E }: Case, all: A, wanted = ALL): A[] {
  let end = 0;
  return [B * H * T * D, B * H * S * D, B * H * S * E].map((length, i) => {
    const start = end;
    end += wanted[i] ? length : 0;
    return all.subarray(start, end) as A;
  });
}

function result(engine: Engine, c: Case, inputs: readonly Given[], wanted = ALL): Float32Array[] {
  const { B, H, T, S, D, E, softcap } = c;
  const lengths = [B * H * T * D, B * H * S * D, B * H * S * E];
  const length = lengths.reduce((total, n, i) => total + (wanted[i] ? n : 0), 0);
  const all = computed(engine, inputs, [length], (out, views) => {
    attentionGrad(engine, out, views, { scale: 1 / Math.sqrt(D), softcap, wanted });
  });
  return parts(c, all, wanted);
}

/** Each case with its inputs and what they give. */
const GIVEN = await Promise.all(
  Object.entries(CASES).map(async ([name, c]) => {
    const inputs = withGradient(c);
    const attrs = { scale: 1 / Math.sqrt(c.D), softcap: c.softcap, wanted: ALL };
    const all = await expected(inputs, (q, k, v, mask, g) => {
      const gradients = composite(q!, k!, v!, mask!, g!, attrs);
      return cat(
        gradients.map((gradient) => reshape(gradient!, [gradient!.size])),
        0,
      );
    });
    return { name, c, inputs, gradients: parts(c, Float64Array.from(all)) };
  }),
);

describe.each([
  { madd: false, threads: 1, tile: "4x8" },
  { madd: false, threads: 2, tile: "4x8" },
  { madd: true, threads: 1, tile: "4x8" },
  { madd: false, threads: 2, tile: "6x16" },
  { madd: true, threads: 1, tile: "6x16" },
] as const)("attentionGrad with $threads threads, tiles of $tile, relaxed_madd: $madd", ({ madd, threads, tile }) => {
  const engine = new Engine({ madd }, threads, Infinity);
  engine.tile = tile;
  beforeAll(() => engine.pool.ready());
  afterAll(() => engine.pool.close());

  test.for(GIVEN)("$name", ({ c, inputs, gradients }, context) => {
    context.skip(madd && !detectFeatures().madd, "no relaxed_madd here");
    // terms that cancel are as large as the largest element: 2⁻¹⁹ of it, 16 ulps
    result(engine, c, inputs).forEach((gradient, i) => {
      const largest = Array.from(gradients[i]!).reduce((most, x) => Math.max(most, Math.abs(x)), 0);
      expectClose(gradient, gradients[i]!, { absolute: 2 ** -19 * largest });
    });
  });
});

describe("attentionGrad", () => {
  const [one, two] = [1, 2].map((threads) => new Engine({ madd: false }, threads, Infinity)) as [Engine, Engine];
  beforeAll(() => two.pool.ready());
  afterAll(() => two.pool.close());
  const c = causal({ ...sizes, B: 2, H: 4, K: 2, T: 75, S: 82, D: 64, E: 48 });
  const inputs = withGradient(c);
  const all = result(one, c, inputs);

  test("two threads give the bytes of one", () => {
    expect(result(two, c, inputs)).toEqual(all);
  });
  test("tiles of eight rows give the bytes of tiles of four", () => {
    const eight = new Engine({ madd: false }, 1, Infinity);
    eight.tile = "6x16";
    const odd = causal({ ...c, S: 87, D: 30, E: 29 });
    const given = withGradient(odd);
    expect(result(eight, odd, given)).toEqual(result(one, odd, given));
  });
  test.each([
    [[true, false, false]],
    [[false, true, false]],
    [[false, false, true]],
    [[true, false, true]],
    [[false, true, true]],
    [[true, true, false]],
  ] as const)("what is wanted, %j, has the bytes that it has among all", (wanted) => {
    expect(result(one, c, inputs, wanted)).toEqual(
      all.map((gradient, i) => (wanted[i] ? gradient : new Float32Array())),
    );
  });
  test("a gradient of NaN reaches no other query, and no key of another head", () => {
    const g = { ...inputs[4]!, data: inputs[4]!.data.slice() };
    const query = 30;
    g.data[query * c.E] = NaN;
    const gradients = result(one, c, inputs.with(4, g));
    const rows = gradients.map((x, i) => {
      const width = [c.D, c.D, c.E][i]!;
      return Array.from({ length: x.length / width }, (_, row) => row).filter((row) =>
        x.subarray(row * width, (row + 1) * width).includes(NaN),
      );
    });
    const reached = Array.from({ length: query + 1 + c.S - c.T }, (_, s) => s);
    expect(rows[0]).toEqual([query]);
    for (const ofKeys of rows.slice(1)) {
      expect(ofKeys).toEqual(expect.arrayContaining(reached));
      expect(Math.max(...ofKeys)).toBeLessThan(c.S);
    }
  });
});
