import { type Sequence, SequenceDataset } from "@neolog/models";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Batch, type BatchOptions, batchesOf, costOf } from "./batches.ts";
import type { ModelKind } from "./example.ts";

const OPTIONS: BatchOptions = { batch_size: 3, shuffle: true, seed: 1 };
const LENGTHS = [2, 9, 4, 3, 9, 2, 5];
/** Text i is i, i + 100, i + 200, … */
const examples: Sequence[] = LENGTHS.map((length, i) => ({
  input_ids: Array.from({ length }, (_, t) => i + 100 * t),
}));

async function epochOf(options: Partial<BatchOptions>, rows = examples, kind: ModelKind = "causal"): Promise<Batch[]> {
  const found: Batch[] = [];
  const dataset = await SequenceDataset.from(rows);
  for await (const batch of batchesOf(dataset, { ...OPTIONS, ...options }, kind).epoch(0)) found.push(batch);
  return found;
}
const totals = (batches: readonly Batch[]) => ({
  tokens: batches.reduce((sum, { tokens }) => sum + tokens, 0),
  padding: batches.reduce((sum, { padding }) => sum + padding, 0),
});

describe("batches", () => {
  test("count tokens and padding, which bucketing and packing lower", async () => {
    const random = totals(await epochOf({}));
    const bucketed = totals(await epochOf({ batching: "bucketed" }));
    const packed = totals(await epochOf({ packing: true }));
    for (const { tokens } of [random, bucketed, packed]) expect(tokens).toBe(34);
    expect(bucketed.padding).toBeLessThan(random.padding);
    expect(packed.padding).toBeLessThan(random.padding);
    expect(totals(await epochOf({ batch_size: 1 })).padding).toBe(0);
  });

  test("packed, hold the targets of the padded ones, step by step", async () => {
    const lists = fc.array(fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 2, maxLength: 8 }), { minLength: 1 });
    const targets = ({ inputs: { labels } }: Batch): Int32Array =>
      labels.values.filter((label, i) => label !== -100 && i % labels.columns > 0).toSorted();
    await fc.assert(
      fc.asyncProperty(lists, fc.integer({ min: 1, max: 5 }), fc.nat(), async (lists, batch_size, seed) => {
        const rows = lists.map((input_ids) => ({ input_ids }));
        const padded = await epochOf({ batch_size, seed }, rows);
        const packed = await epochOf({ batch_size, seed, packing: true }, rows);
        expect(packed.map(targets)).toEqual(padded.map(targets));
        for (const [i, { inputs }] of packed.entries())
          expect(costOf(inputs.input_ids)).toBeLessThanOrEqual(costOf(padded[i]!.inputs.input_ids));
      }),
    );
  });

  test("packed, leave masked positions out at the end of a row, and take them nowhere else", async () => {
    const row = { input_ids: [5, 6, 7], attention_mask: [1, 1, 0], labels: [5, 6, -100] };
    const [batch] = await epochOf({ packing: true }, [row]);
    expect(batch).toMatchObject({ tokens: 2, padding: 0 });
    expect([...batch!.inputs.input_ids.values]).toEqual([5, 6]);
    const left = { ...row, attention_mask: [0, 1, 1] };
    await expect(epochOf({ packing: true }, [row, left])).rejects.toThrow(
      "--packing: rows must have masked positions at their end alone, got others in row 2",
    );
  });

  test("are packed for causal models alone", async () => {
    const mustHold =
      "--packing: must be for a causal language model, where positions that begin again part texts, got ";
    await expect(epochOf({ packing: true }, examples, "masked")).rejects.toThrow(`${mustHold}a masked language model`);
    await expect(epochOf({ packing: true }, examples, "seq2seq")).rejects.toThrow(`${mustHold}an encoder-decoder`);
  });

  test("bucketed for an encoder-decoder, go by both texts", async () => {
    const rows = [1, 9, 1, 9].map((n, i) => ({ input_ids: [1, 2, 3], labels: Array.from({ length: n }, () => i) }));
    const batches = await epochOf({ batching: "bucketed", batch_size: 2 }, rows, "seq2seq");
    expect(batches.map(({ inputs }) => inputs.labels.columns).toSorted((a, b) => a - b)).toEqual([1, 9]);
  });
});
