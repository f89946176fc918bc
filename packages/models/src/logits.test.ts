import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type GenerateOptions, endsAndPad } from "./generateOptions.ts";
import {
  type LogitsProcessor,
  argmaxOf,
  minLength,
  minP,
  noRepeatNgram,
  repetitionPenalty,
  softmaxOf,
  temperature,
  topK,
  topP,
} from "./logits.ts";
import { processorsOf } from "./sampling.ts";
import { readObject, readTensors, referenceFolders, worstExcess } from "./testing.ts";

interface OpCase {
  readonly name: string;
  readonly attrs: Readonly<Record<string, number>>;
  readonly atol: { readonly "out.y": number };
}

const PROCESSORS: Readonly<Record<string, (attrs: Readonly<Record<string, number>>) => LogitsProcessor>> = {
  logits_temperature: (attrs) => temperature(attrs["temperature"]!),
  logits_top_k: (attrs) => topK(attrs["top_k"]!),
  logits_top_p: (attrs) => topP(attrs["top_p"]!),
  logits_top_p_tiny: (attrs) => topP(attrs["top_p"]!),
  logits_min_p: (attrs) => minP(attrs["min_p"]!),
  logits_repetition_penalty: (attrs) => repetitionPenalty(attrs["penalty"]!),
  logits_no_repeat_ngram: (attrs) => noRepeatNgram(attrs["ngram_size"]!),
  logits_min_length: (attrs) => minLength(attrs["min_length"]!, [attrs["eos_token_id"]!]),
};

const { path, complete } = referenceFolders("ops");
const { cases } = existsSync(path)
  ? await readObject<{ cases: readonly OpCase[] }>(path, "index.json")
  : { cases: [] as readonly OpCase[] };
const recorded = cases.filter(({ name }) => name.startsWith("logits_"));

test.runIf(complete)("every recorded processor is ours", () => {
  expect(recorded.map(({ name }) => name).toSorted()).toEqual(Object.keys(PROCESSORS).toSorted());
});

describe.runIf(recorded.length > 0)("logits processors equal transformers'", () => {
  test.each(recorded)("$name", async ({ name, attrs, atol }) => {
    const tensors = await readTensors(path, "ops.safetensors");
    const read = (key: string): { shape: readonly number[]; data: ArrayLike<number> } => tensors.get(`${name}/${key}`)!;
    const [rows, vocab] = read("in.logits").shape as [number, number];
    const length = read("in.ids").shape[1]!;
    for (let row = 0; row < rows; row++) {
      const slice = (key: string, width: number): number[] =>
        Array.from(read(key).data).slice(row * width, (row + 1) * width);
      const scores = Float32Array.from(slice("in.logits", vocab));
      PROCESSORS[name]!(attrs)(scores, slice("in.ids", length));
      const expected = slice("out.y", vocab);
      const removed = (values: ArrayLike<number>): boolean[] => Array.from(values, (x) => x === -Infinity);
      expect(removed(scores)).toEqual(removed(expected));
      expect(worstExcess(scores, expected, { atol: atol["out.y"] }, (i) => expected[i] !== -Infinity)).toBeLessThan(0);
    }
  });
});

interface Chain {
  readonly options: Omit<GenerateOptions, "input_ids">;
  readonly processors: readonly string[];
  readonly ids: readonly number[][];
  readonly scores: readonly number[][];
  readonly expected: readonly (number | "-inf")[][];
}
interface Chains {
  readonly made_with: { readonly prompt_length: number };
  readonly cases: readonly Chain[];
}
const chains = await readObject<Chains>(fileURLToPath(new URL("../../../fixtures", import.meta.url)), "logits.json");

describe("the processors of a set of options, one after the other, do what transformers' do", () => {
  test.each(chains.cases.map((chain) => ({ title: JSON.stringify(chain.options), chain })))("$title", ({ chain }) => {
    const { ends } = endsAndPad({ ...chain.options, input_ids: [] }, {});
    const processors = processorsOf(chain.options, ends, chains.made_with.prompt_length);
    chain.scores.forEach((row, b) => {
      const scores = Float32Array.from(row);
      for (const process of processors) process(scores, chain.ids[b]!);
      const expected = chain.expected[b]!.map((x) => (x === "-inf" ? -Infinity : x));
      expect(Array.from(scores, (x) => x === -Infinity)).toEqual(expected.map((x) => x === -Infinity));
      const kept = (i: number): boolean => expected[i] !== -Infinity;
      // written with seven digits
      expect(worstExcess(scores, expected, { atol: 0, rtol: 7e-7 }, kept)).toBeLessThanOrEqual(0);
    });
  });
});

describe("logits processors", () => {
  const scores = fc
    .array(fc.oneof(fc.integer({ min: -3, max: 3 }), fc.float({ noNaN: true, min: -50, max: 50 })), {
      minLength: 1,
      maxLength: 200,
    })
    .map((values) => Float32Array.from(values));
  const keptBy = (process: LogitsProcessor, given: Float32Array): number[] => {
    const processed = given.slice();
    process(processed, []);
    return [...processed.keys()].filter((i) => processed[i] !== -Infinity);
  };

  test("top-k keeps what is at least the k-th of the sorted scores", () => {
    fc.assert(
      fc.property(scores, fc.integer({ min: 1, max: 220 }), (given, k) => {
        const threshold = given.toSorted().at(-Math.min(k, given.length))!;
        expect(keptBy(topK(k), given)).toEqual([...given.keys()].filter((i) => given[i]! >= threshold));
      }),
    );
  });

  test("top-p keeps the fewest likeliest tokens that reach p", () => {
    fc.assert(
      fc.property(scores, fc.double({ min: 1e-6, max: 1 - 1e-6, noNaN: true }), (given, p) => {
        const probabilities = softmaxOf(given);
        const kept = keptBy(topP(p), given).toSorted((i, j) => probabilities[i]! - probabilities[j]!);
        const total = kept.reduce((sum, i) => sum + probabilities[i]!, 0);
        expect(total).toBeGreaterThan(p - 1e-9);
        if (kept.length > 1) expect(total - probabilities[kept[0]!]!).toBeLessThan(p + 1e-9);
        const least = probabilities[kept[0]!]!;
        probabilities.forEach((x, i) => expect(x > least && !kept.includes(i)).toBe(false));
      }),
    );
  });

  test("top-k keeps ties, and everything when k is the vocabulary or more", () => {
    const scores = Float32Array.of(1, 3, 3, 2);
    topK(1)(scores, []);
    expect([...scores]).toEqual([-Infinity, 3, 3, -Infinity]);
    topK(9)(scores, []);
    expect([...scores]).toEqual([-Infinity, 3, 3, -Infinity]);
  });

  test("top-p keeps the likeliest token however small p is", () => {
    const scores = Float32Array.of(0, 0.5, 0.1);
    topP(1e-9)(scores, []);
    expect([...scores]).toEqual([-Infinity, 0.5, -Infinity]);
  });

  test("the first of equal scores is chosen", () => {
    expect(argmaxOf(Float32Array.of(1, 4, 4))).toBe(1);
  });
});
