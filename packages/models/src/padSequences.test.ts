import fc from "fast-check";
import { expect, test } from "vitest";
import type { HostMatrix } from "./inputs.ts";
import { type Sequence, padSequences } from "./padSequences.ts";

const listsOf = ({ values, columns }: HostMatrix): number[][] =>
  Array.from({ length: values.length / columns }, (_, i) => [...values.subarray(i * columns, (i + 1) * columns)]);

/** The same with lists, and nothing shared. */
function naively(texts: readonly Sequence[], pad: number) {
  const padded = (lists: readonly (readonly number[])[], fill: number): number[][] => {
    const longest = Math.max(...lists.map(({ length }) => length));
    return lists.map((list) => Array.from({ length: longest }, (_, t) => list[t] ?? fill));
  };
  const ids = texts.map(({ input_ids }) => Array.from(input_ids));
  const masks = texts.map(({ attention_mask }, i) =>
    attention_mask ? Array.from(attention_mask) : ids[i]!.map(() => 1),
  );
  const labels = texts.map((text, i) => (text.labels ? Array.from(text.labels) : ids[i]!));
  return { input_ids: padded(ids, pad), attention_mask: padded(masks, 0), labels: padded(labels, -100) };
}

const id = fc.integer({ min: -100, max: 50_000 });
const sequence: fc.Arbitrary<Sequence> = fc.array(id, { minLength: 1, maxLength: 9 }).chain((input_ids) =>
  fc.record({
    input_ids: fc.constantFrom<ArrayLike<number>>(input_ids, Int32Array.from(input_ids)),
    attention_mask: fc.option(
      fc.array(fc.constantFrom(0, 1), { minLength: input_ids.length, maxLength: input_ids.length }),
      { nil: undefined },
    ),
    labels: fc.option(fc.array(id, { maxLength: 12 }), { nil: undefined }),
  }),
);

test("pads as lists would", () => {
  fc.assert(
    fc.property(fc.array(sequence, { minLength: 1, maxLength: 6 }), fc.nat(9), (texts, padTokenId) => {
      fc.pre(texts.some(({ labels }) => labels === undefined || labels.length > 0));
      const { input_ids, attention_mask, labels } = padSequences(texts, { padTokenId });
      const lists = { input_ids: listsOf(input_ids), attention_mask: listsOf(attention_mask), labels: listsOf(labels) };
      expect(lists).toEqual(naively(texts, padTokenId));
    }),
  );
});

test("says what is no batch", () => {
  const none = "padSequences: at least one text with a token is needed, got ";
  expect(() => padSequences([])).toThrow(`${none}[0, 0]`);
  expect(() => padSequences([{ input_ids: [] }])).toThrow(`${none}[1, 0]`);
  expect(() => padSequences([{ input_ids: [1, 2], attention_mask: [1] }])).toThrow(
    "padSequences: attention_mask must be as long as input_ids, got [2] and [1]",
  );
});
