import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Sequence } from "./padSequences.ts";
import { SequenceDataset } from "./sequenceDataset.ts";

const list = fc.array(fc.integer({ min: -100, max: 2 ** 31 - 1 }), { minLength: 1, maxLength: 40 });
const sequence = fc.record({
  input_ids: list,
  attention_mask: fc.option(list, { nil: undefined }),
  labels: fc.option(list, { nil: undefined }),
});
const plain = ({ input_ids, attention_mask, labels }: Sequence) => ({
  input_ids: Array.from(input_ids),
  attention_mask: attention_mask && Array.from(attention_mask),
  labels: labels && Array.from(labels),
});

describe("SequenceDataset", () => {
  test("gives every text back as it came, also from its columns", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(sequence, { maxLength: 40 }), async (texts) => {
        const dataset = await SequenceDataset.from(texts);
        expect(dataset.length).toBe(texts.length);
        expect([...dataset.lengths]).toEqual(texts.map(({ input_ids }) => input_ids.length));
        expect(dataset.tokens).toBe(texts.flatMap(({ input_ids }) => input_ids).length);
        expect([...dataset].map(plain)).toEqual(texts);
        expect([...new SequenceDataset(dataset.columns)].map(plain)).toEqual(texts);
      }),
    );
  });

  test("has no text outside its numbers", async () => {
    const dataset = await SequenceDataset.from([{ input_ids: [1] }]);
    for (const index of [-1, 1, 0.5, NaN]) expect(dataset.at(index), String(index)).toBeUndefined();
  });

  test("refuses columns that do not go together", async () => {
    const { columns } = await SequenceDataset.from([{ input_ids: [1, 2] }, { input_ids: [3] }]);
    const labels = { values: Int32Array.of(1), lengths: Int32Array.of(1, 1) };
    expect(() => new SequenceDataset({ ...columns, labels })).toThrow(
      "SequenceDataset: labels must have a length for each text (2) and no value more, got [1] and [2]",
    );
    expect(() => new SequenceDataset({ ...columns, labels: { ...labels, lengths: Int32Array.of(1) } })).toThrow(
      "labels must have a length for each text (2)",
    );
  });
});
