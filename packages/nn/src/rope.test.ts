import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { rope, tensor } from "@neolog/tensor";
import { describe, expect, test } from "vitest";
import { type RopeParameters, applyRotary, ropeAngles, ropeFrequencies } from "./rope.ts";

interface OpCase {
  readonly name: string;
  readonly op: string;
  readonly attrs: {
    readonly rope_parameters: RopeParameters;
    readonly head_dim: number;
    readonly max_position_embeddings: number;
    readonly seq_len: number | null;
    readonly attention_scaling: number;
  };
  readonly atol: { readonly "out.y": number };
}

const golden = fileURLToPath(new URL("../../../../shared/golden/ops", import.meta.url));
const complete = existsSync(golden);
if (!complete) console.log("skipped: ../shared/golden/ops is absent");
const { cases } = (complete ? JSON.parse(readFileSync(`${golden}/index.json`, "utf8")) : { cases: [] }) as {
  readonly cases: readonly OpCase[];
};

/** The float32 values of one tensor of the reference file. */
function readGolden(key: string): Float32Array {
  const bytes = readFileSync(`${golden}/ops.safetensors`);
  const start = 8 + Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString("utf8", 8, start)) as Record<string, { data_offsets: [number, number] }>;
  const [from, to] = header[key]!.data_offsets;
  return new Float32Array(Uint8Array.from(bytes.subarray(start + from, start + to)).buffer);
}

describe.skipIf(!complete)("ropeFrequencies equals transformers'", () => {
  const recorded = cases.filter(({ op }) => op === "rope_inv_freq");

  test.each(recorded)("$name", ({ name, attrs, atol }) => {
    const { rope_parameters, head_dim, max_position_embeddings, seq_len, attention_scaling } = attrs;
    const found = ropeFrequencies(rope_parameters, head_dim, max_position_embeddings, seq_len ?? undefined);
    const off = readGolden(`${name}/out.y`).map((expected, i) => Math.abs(found.inv_freq[i]! - expected));
    expect(found.inv_freq).toHaveLength(off.length);
    expect(Math.max(...off)).toBeLessThanOrEqual(atol["out.y"]);
    expect(found.attention_scaling).toBeCloseTo(attention_scaling, 7);
  });

  test("all but the default type are recorded", () => {
    const types = recorded.map(({ attrs }) => attrs.rope_parameters.rope_type).toSorted();
    expect(types).toEqual(["dynamic", "linear", "llama3", "yarn"]);
  });
});

const parameters = (changes: Partial<RopeParameters>): RopeParameters => ({
  rope_type: "default",
  rope_theta: 10_000,
  ...changes,
});

describe("ropeFrequencies", () => {
  test("default frequencies fall from 1 by a constant factor", () => {
    const { inv_freq, attention_scaling } = ropeFrequencies(parameters({}), 8, 64);
    expect([...inv_freq]).toEqual([1, 0.1, 0.01, 0.001].map((f) => expect.closeTo(f, 8) as number));
    expect(attention_scaling).toBe(1);
  });

  test("dynamic stretches only what is longer than the model was trained on", () => {
    const dynamic = parameters({ rope_type: "dynamic", factor: 2 });
    const short = ropeFrequencies(dynamic, 8, 64, 10).inv_freq;
    expect(short).toEqual(ropeFrequencies(parameters({}), 8, 64).inv_freq);
    const long = ropeFrequencies(dynamic, 8, 64, 128).inv_freq;
    expect(long[0]).toBe(1);
    expect(long[3]).toBeLessThan(short[3]!);
  });

  // get_mscale in transformers' modeling_rope_utils: 0.1 · mscale · ln(factor) + 1, and the quotient where both are given.
  test("yarn scales attention by attention_factor, else by mscale over mscale_all_dim, else by the factor", () => {
    const scaling = (changes: Partial<RopeParameters>): number =>
      ropeFrequencies(parameters({ rope_type: "yarn", factor: 4, ...changes }), 8, 64).attention_scaling;
    expect(scaling({ attention_factor: 0.5, mscale: 2, mscale_all_dim: 1 })).toBe(0.5);
    expect(scaling({ mscale: 2, mscale_all_dim: 1 })).toBeCloseTo(
      (0.2 * Math.log(4) + 1) / (0.1 * Math.log(4) + 1),
      12,
    );
    expect(scaling({ mscale: 2 })).toBeCloseTo(0.1 * Math.log(4) + 1, 12);
    expect(scaling({ factor: 1 })).toBe(1);
  });

  test("yarn keeps the fastest pairs and slows the slowest by the whole factor", () => {
    const yarn = parameters({ rope_type: "yarn", factor: 4, original_max_position_embeddings: 64 });
    const [plain, found] = [parameters({}), yarn].map((p) => ropeFrequencies(p, 32, 256).inv_freq);
    expect(found![0]).toBe(plain![0]);
    expect(found![15]! * 4).toBeCloseTo(plain![15]!, 12);
    const ratios = Array.from(found!, (f, i) => f / plain![i]!);
    expect(ratios).toEqual(ratios.toSorted((a, b) => b - a));
  });

  test("yarn's ramp begins between pairs unless truncated", () => {
    const yarn = parameters({ rope_type: "yarn", factor: 4, original_max_position_embeddings: 64 });
    const [whole, exact] = [true, false].map((truncate) => ropeFrequencies({ ...yarn, truncate }, 32, 256).inv_freq);
    expect(whole).not.toEqual(exact);
    expect(ropeFrequencies(yarn, 32, 256).inv_freq).toEqual(whole);
  });
});

// _compute_longrope_parameters in transformers' modeling_rope_utils
test("longrope divides each frequency by its factor and scales attention by how far it stretches", () => {
  const longrope = parameters({
    rope_type: "longrope",
    short_factor: [1, 2],
    long_factor: [4, 8],
    original_max_position_embeddings: 16,
  });
  const plain = ropeFrequencies(parameters({}), 4, 64).inv_freq;
  const at = (length: number, changes: Partial<RopeParameters> = {}) =>
    ropeFrequencies({ ...longrope, ...changes }, 4, 64, length);
  for (const [length, factors] of [
    [16, [1, 2]],
    [17, [4, 8]],
  ] as const) {
    expect([...at(length).inv_freq]).toEqual(factors.map((f, i) => expect.closeTo(plain[i]! / f, 9) as number));
  }
  expect(at(1).attention_scaling).toBeCloseTo(Math.sqrt(1 + Math.log(4) / Math.log(16)), 12); // 64 / 16
  expect(at(1, { factor: 16 }).attention_scaling).toBeCloseTo(Math.sqrt(2), 12);
  expect(at(1, { factor: 0.5 }).attention_scaling).toBe(1);
  expect(at(1, { attention_factor: 1.25 }).attention_scaling).toBe(1.25);
});

test("scores between rotated queries and keys depend on their distance alone", () => {
  const frequencies = ropeFrequencies(parameters({}), 4, 64);
  const rotated = (values: number[], position: number): number[] => {
    const { cos, sin } = ropeAngles(frequencies, Int32Array.of(position), 1);
    return [...rope(tensor(values, [1, 1, 1, 4]), cos, sin).dataSync()];
  };
  const score = (q: number, k: number): number => {
    const key = rotated([1, -1, 0.5, 2], k);
    return rotated([0.3, 0.7, -0.2, 1], q).reduce((sum, x, i) => sum + x * key[i]!, 0);
  };
  expect(score(7, 3)).toBeCloseTo(score(24, 20), 5);
  expect(score(7, 3)).not.toBeCloseTo(score(7, 4), 3);
});

test("partial rotary turns the first elements of each head as a smaller head, and leaves the rest", () => {
  const partial = ropeFrequencies(parameters({ partial_rotary_factor: 0.5 }), 8, 64);
  expect(partial).toEqual(ropeFrequencies(parameters({}), 4, 64));
  const angles = ropeAngles(partial, Int32Array.of(0, 5), 1);
  const head = Array.from({ length: 16 }, (_, i) => i - 7.5);
  const first = [head.slice(0, 4), head.slice(8, 12)].flat();
  const alone = [...rope(tensor(first, [1, 1, 2, 4]), angles.cos, angles.sin).dataSync()];
  expect([...applyRotary(tensor(head, [1, 1, 2, 8]), angles).dataSync()]).toEqual([
    ...alone.slice(0, 4),
    ...head.slice(4, 8),
    ...alone.slice(4),
    ...head.slice(12),
  ]);
});
