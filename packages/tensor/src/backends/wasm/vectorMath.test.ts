import { describe, expect, test } from "vitest";
import { FUNCTIONS as EXACT } from "../../functions.ts";
import { ulpsBetween } from "../../testing/matchers.ts";
import { at } from "./asm/expression.ts";
import { Engine, type ModuleDefinition } from "./engine.ts";
import { detectFeatures, setV8Flags } from "./features.ts";
import { erf, exp, expOfNegative, expm1, log, log1p, onePlusExp, onePlusTanh, tanh } from "./vectorMath.ts";
import { type Lanes, Vectors } from "./vectors.ts";

type VectorFunction = (v: Vectors, x: Lanes) => Lanes;

setV8Flags(); // relaxed_madd on Node 20

/** What `apply` gives for float32 numbers. */
function computed(apply: VectorFunction, madd: boolean, xs: Float32Array): Float32Array {
  const engine = new Engine({ madd }, 1, Infinity);
  const [x, y] = [engine.heap.allocate("float32", xs.length), engine.heap.allocate("float32", xs.length)];
  x.data.set(xs);
  const definition: ModuleDefinition = {
    build(m) {
      m.kernel("apply", { out: "i32", x: "i32" }, (f, { out, x: input, from, to }) => {
        const [p, q, end] = [f.local("i32", at(input, from, 4)), f.local("i32", out), f.local("i32", at(input, to, 4))];
        new Vectors(f, 4, madd).walk(p, end, [q], (v) => v.store(q, apply(v, v.load(p))));
      });
    },
  };
  engine.run(definition, "apply", [y.address, x.address], { items: xs.length, work: 1 });
  return y.data as Float32Array;
}

const SPECIAL = [
  0,
  -0,
  -1,
  Infinity,
  -Infinity,
  NaN,
  1e-45,
  88.72283,
  88.72284,
  -87.33655,
  -103.97,
  -103.98,
  -104,
  -105,
];

/** Every 4,099th float32 there is, NaNs of many payloads among them, and numbers close together around 0 and ±1. */
const SAMPLES = Float32Array.from([
  ...new Float32Array(Uint32Array.from({ length: Math.floor(2 ** 32 / 4099) }, (_, i) => i * 4099).buffer),
  ...Array.from({ length: 200_001 }, (_, i) => (i - 100_000) / 1000),
  ...Array.from({ length: 4001 }, (_, i) => 1 + (i - 2000) * 2 ** -22),
  ...SPECIAL,
]);

/** Functions with what they mean, how many ULPs they may be off the rounded value, and where. */
const FUNCTIONS: readonly {
  readonly apply: VectorFunction;
  readonly exact: (x: number) => number;
  readonly ulps: number;
  readonly domain?: (x: number) => boolean;
}[] = [
  { apply: exp, exact: Math.exp, ulps: 1 },
  { apply: expOfNegative, exact: Math.exp, ulps: 1, domain: (x) => !(x > 0) },
  { apply: onePlusExp, exact: (x) => 1 + Math.exp(x), ulps: 1 },
  { apply: onePlusTanh, exact: (x) => 2 / (1 + Math.exp(-2 * x)), ulps: 2, domain: (x) => !(x < -43.6) },
  { apply: expm1, exact: Math.expm1, ulps: 1 },
  { apply: log, exact: Math.log, ulps: 1 },
  { apply: log1p, exact: Math.log1p, ulps: 1 },
  { apply: tanh, exact: Math.tanh, ulps: 2 },
  { apply: erf, exact: EXACT.erf, ulps: 1 },
];

/** ULPs between two numbers, of which both or none must be NaN. */
function off(y: number, expected: number): number {
  if (y !== y || expected !== expected) return y !== y && expected !== expected ? 0 : Infinity;
  return ulpsBetween(y, expected);
}

describe.each([false, true])("with relaxed_madd: %s", (madd) => {
  test.for(FUNCTIONS)("$apply.name over the whole range of float32", (row, context) => {
    const { apply, exact, ulps, domain = () => true } = row;
    context.skip(madd && !detectFeatures().madd, "no relaxed_madd here");
    const xs = SAMPLES.filter(domain);
    const ys = computed(apply, madd, xs);
    let worst = 0;
    xs.forEach((x, i) => (worst = Math.max(worst, off(ys[i]!, exact(x)))));

    expect(worst).toBeLessThanOrEqual(ulps);
  });
});

test("exponentials of 0 and −Infinity are exact", () => {
  const ends = Float32Array.from([0, -0, -Infinity]);
  for (const apply of [exp, expOfNegative]) expect(Array.from(computed(apply, false, ends))).toEqual([1, 1, 0]);
});

test("1 + tanh(x) is 0, at most off by a denormal, where it is below 2⁻¹²⁵", () => {
  const far = SAMPLES.filter((x) => x <= -43.6);
  const ys = computed(onePlusTanh, false, far);
  far.forEach((x, i) => expect(Math.abs(ys[i]! - 2 / (1 + Math.exp(-2 * x)))).toBeLessThan(2 ** -126));
  expect(Array.from(computed(onePlusTanh, false, Float32Array.from([-Infinity, Infinity])))).toEqual([0, 2]);
});
