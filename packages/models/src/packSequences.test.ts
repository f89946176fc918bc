import { backward } from "@neolog/autograd";
import { stateDict } from "@neolog/nn";
import { Scope, type Tensor } from "@neolog/tensor";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { AutoModelForCausalLM } from "./autoModel.ts";
import type { ModelInputs } from "./causalLm.ts";
import type { HostMatrix } from "./inputs.ts";
import { type PackedSequences, packSequences } from "./packSequences.ts";
import { padSequences } from "./padSequences.ts";
import { DECODERS, TINY, worstExcess } from "./testing.ts";

const TEXTS = [[1, 2, 3, 4, 5, 6], [7], [8, 9, 10, 3], [4, 2]];

const listsOf = ({ values, columns }: HostMatrix): number[][] =>
  Array.from({ length: values.length / columns }, (_, i) => [...values.subarray(i * columns, (i + 1) * columns)]);
const rowsOf = (packed: PackedSequences): object =>
  Object.fromEntries(Object.entries(packed).map(([key, matrix]) => [key, listsOf(matrix as HostMatrix)]));

test("a row holds the ids, positions that begin again, and labels but for each first token", () => {
  const packed = packSequences([{ input_ids: [5, 6, 7] }, { input_ids: [8, 9], labels: [-100, 4] }]);
  expect(rowsOf(packed)).toEqual({
    input_ids: [[5, 6, 7, 8, 9]],
    position_ids: [[0, 1, 2, 0, 1]],
    labels: [[-100, 6, 7, -100, 4]],
  });
  expect(() => packSequences([{ input_ids: [1, 2], labels: [1] }])).toThrow(
    "packSequences: a text needs a label for each id, got [2] and [1]",
  );
});

describe("in several rows", () => {
  const text = (...input_ids: number[]) => ({ input_ids });

  test("each text goes where least stands, the longest first", () => {
    const texts = [text(1, 2), text(3, 4, 5, 6, 7), text(8, 9, 10), text(11)];
    expect(rowsOf(packSequences(texts, { rows: 2 }))).toEqual({
      input_ids: [[3, 4, 5, 6, 7, 11], [8, 9, 10, 1, 2, 2]],
      position_ids: [[0, 1, 2, 3, 4, 0], [0, 1, 2, 0, 1, 0]],
      labels: [[-100, 4, 5, 6, 7, -100], [-100, 9, 10, -100, 2, -100]],
    }); // prettier-ignore
    expect(packSequences(texts, { rows: 9 }).input_ids.rows).toBe(4);
  });

  test("says what it cannot pack", () => {
    expect(() => packSequences([{ input_ids: [1, 2], attention_mask: [1, 0] }])).toThrow(
      "packSequences: texts must come without padding: leave out masked positions, got [2]",
    );
    const none = "packSequences: at least one text with a token is needed, got [0]";
    expect(() => packSequences([])).toThrow(none);
    expect(() => packSequences([], { rows: 2 })).toThrow(none);
    const positive = "packSequences: rows must be a positive integer, got ";
    expect(() => packSequences([text(1)], { rows: 0 })).toThrow(`${positive}0`);
    expect(() => packSequences([text(1)], { rows: 1.5 })).toThrow(`${positive}1.5`);
  });

  test("always holds every text once, whole, from position 0 on", () => {
    const lengths = fc.array(fc.integer({ min: 1, max: 7 }), { minLength: 1, maxLength: 9 });
    fc.assert(
      fc.property(lengths, fc.integer({ min: 1, max: 10 }), (lengths, rows) => {
        const lists = lengths.map((length, i) => Array.from({ length }, (_, t) => 10 * i + t));
        const { input_ids, position_ids, labels } = packSequences(
          lists.map((list) => text(...list)),
          { rows },
        );
        expect(input_ids.rows).toBe(Math.min(rows, lists.length));
        for (const ids of lists) {
          const at = input_ids.values.indexOf(ids[0]!);
          const part = ({ values }: HostMatrix): number[] => [...values.subarray(at, at + ids.length)];
          expect(Math.floor(at / input_ids.columns)).toBe(Math.floor((at + ids.length - 1) / input_ids.columns));
          expect(part(input_ids)).toEqual(ids);
          expect(part(position_ids)).toEqual(ids.map((_, t) => t));
          expect(part(labels)).toEqual([-100, ...ids.slice(1)]);
        }
        const counted = labels.values.filter((label) => label !== -100).length;
        expect(counted).toBe(lists.flat().length - lists.length);
      }),
    );
  });

  test.each(DECODERS)("gives the loss and gradients of the padded batch, %s", (type) => {
    const ids = fc.array(fc.integer({ min: 1, max: 22 }), { minLength: 1, maxLength: 6 });
    const batches = fc
      .array(ids, { minLength: 1, maxLength: 5 })
      .filter((lists) => lists.some(({ length }) => length > 1));
    const model = AutoModelForCausalLM.fromConfig(TINY[type]!, { seed: 5, std: 0.3 });
    const { weight } = model.moduleAt(model.embeddingPath) as unknown as { weight: Tensor };
    weight.requiresGrad = true;
    const lossAndGradient = (batch: ModelInputs): number[] => {
      using _scope = new Scope();
      const loss = model.forward(batch).loss!;
      backward(loss);
      const values = [...loss.dataSync(), ...weight.grad!.dataSync()];
      weight.grad = null;
      return values;
    };
    fc.assert(
      fc.property(batches, fc.integer({ min: 1, max: 4 }), (lists, rows) => {
        const texts = lists.map((list) => text(...list));
        const [packed, padded] = [packSequences(texts, { rows }), padSequences(texts)].map(lossAndGradient);
        expect(worstExcess(packed!, padded!, { atol: 1e-5, rtol: 1e-4 })).toBeLessThanOrEqual(0);
      }),
      { numRuns: 25 },
    );
  });
});

describe.each(DECODERS)("%s, packed", (type) => {
  const build = () => AutoModelForCausalLM.fromConfig(TINY[type]!, { seed: 5, std: 0.3 });

  test("gives each text the logits that it has alone, bit for bit", () => {
    const model = build();
    const packed = model.forward(packSequences(TEXTS.map((input_ids) => ({ input_ids })))).logits;
    const alone = TEXTS.flatMap((ids) => [...model.forward({ input_ids: [ids] }).logits.dataSync()]);
    expect([...packed.dataSync()]).toEqual(alone);
  });

  test("gives the gradients of the mean over all labels", () => {
    const gradients = (rows: ModelInputs[]) => {
      const model = build();
      for (const p of model.parameters()) p.requiresGrad = true;
      for (const row of rows) backward(model.forward(row).loss!);
      return new Map([...stateDict(model)].map(([key, p]) => [key, p.grad!.dataSync()]));
    };
    using _scope = new Scope();
    const packed = gradients([packSequences([{ input_ids: TEXTS[0]! }, { input_ids: TEXTS[2]! }])]);
    const labels = [TEXTS[0]!, [...TEXTS[2]!, 0, 0]];
    const input_ids = labels.map((ids) => [...ids]);
    labels[1]!.fill(-100, 4);
    const padded = gradients([{ input_ids, labels }]);
    for (const [key, g] of padded)
      expect(worstExcess(packed.get(key)!, g, { atol: 1e-5, rtol: 1e-4 }), key).toBeLessThanOrEqual(0);
  });
});
