import { existsSync } from "node:fs";
import { describe, expect, test } from "vitest";
import {
  type LogitsProcessor,
  argmaxOf,
  minLength,
  minP,
  noRepeatNgram,
  repetitionPenalty,
  temperature,
  topK,
  topP,
} from "./logits.ts";
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

describe("logits processors", () => {
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
