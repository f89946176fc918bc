import { noGrad } from "@neolog/autograd";
import { Scope, defaultBackend, setDefaultBackend, slice } from "@neolog/tensor";
import { computingBackends } from "@neolog/tensor/testing";
import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { type PeftModel, ReusedLoss, TrainableTokensConfig, getPeftModel } from "../index.ts";
import { makeBase, setRows } from "../testing.ts";
import { expectPlain } from "./compare.ts";
import { runPrefix } from "./runs.ts";

const runs = Number(process.env["NEOLOG_SEQUENCES"] ?? 120);

/** Ids of one row, those that count as labels, and how much of it is padding. */
const row = fc
  .array(fc.record({ id: fc.nat(9), counts: fc.boolean() }), { minLength: 2, maxLength: 10 })
  .map((tokens) => ({ ids: tokens.map(({ id }) => id), labels: tokens.map((t) => (t.counts ? t.id : -100)) }));
type Row = typeof row extends fc.Arbitrary<infer T> ? T : never;

/** Rows padded on the right, all of which make at least one prediction. */
function batchOf(rows: readonly Row[]) {
  const columns = Math.max(...rows.map(({ ids }) => ids.length));
  const padded = (values: readonly number[], fill: number): number[] => [
    ...values,
    ...Array.from({ length: columns - values.length }, () => fill),
  ];
  return {
    input_ids: rows.map(({ ids }) => padded(ids, 0)),
    attention_mask: rows.map(({ ids }) =>
      padded(
        ids.map(() => 1),
        0,
      ),
    ),
    labels: rows.map(({ ids, labels }, i) => padded(i === 0 ? labels.with(1, ids[1]!) : labels, -100)),
  };
}

const setting = fc.record({
  base: fc.constantFrom("gpt2", "gpt2 untied", "llama", "llama tied", "gemma2, tied", "qwen3, untied", "opt, tied"),
  ids: fc.uniqueArray(fc.nat(9), { minLength: 1, maxLength: 3 }),
  sides: fc.constantFrom("both" as const, "input" as const, "output" as const),
  maxBytes: fc.constantFrom(0, 500, 2000, 5000, 2 ** 20),
  rows: fc.array(row, { minLength: 1, maxLength: 6 }),
  batches: fc.array(fc.array(fc.nat(5), { minLength: 1, maxLength: 4 }), { minLength: 1, maxLength: 6 }),
});

function wrapped(name: string, ids: readonly number[], sides: "both" | "input" | "output"): PeftModel {
  const base = makeBase(name);
  const tied = base.tiedPaths.length > 0;
  const config = new TrainableTokensConfig({
    token_indices: ids,
    ...(tied || sides === "input"
      ? {}
      : { target_modules: sides === "output" ? [base.headPath] : [base.headPath, base.embeddingPath] }),
  });
  return getPeftModel(base, config, tied ? { sides } : {});
}

const backends = await computingBackends();
describe.each(backends)("on $title", ({ backend }) => {
  beforeAll(() => setDefaultBackend(backend));

  test("P-23: kept or dropped, in any order of batches, the loss is the plain one and so are the gradients", () => {
    fc.assert(
      fc.property(setting, ({ base, ids, sides, maxBytes, rows, batches }) => {
        const peft = wrapped(base, ids, sides);
        const live = defaultBackend().live;
        const reuse = new ReusedLoss(peft, { maxBytes });
        batches.forEach((picked, step) => {
          setRows(peft, "default", (slot, column) => Math.sin(7 * slot + column + step));
          expectPlain(peft, reuse, batchOf(picked.map((i) => rows[i % rows.length]!)));
          expect(reuse.report.on).toBe(true);
          expect(reuse.report.bytes).toBeLessThanOrEqual(maxBytes);
        });
        reuse.dispose();
        expect(defaultBackend().live).toBe(live);
      }),
      { numRuns: Math.ceil(runs / backends.length) },
    );
  });

  test("P-23: logits behind a kept prefix are the plain ones", () => {
    fc.assert(
      fc.property(setting, fc.nat(), ({ base, ids, sides, rows }, cut) => {
        const peft = wrapped(base, ids, sides);
        const model = peft.getBaseModel();
        setRows(peft, "default");
        const texts = rows[0]!.ids;
        const first = sides === "output" ? texts.length : texts.findIndex((id) => ids.includes(id));
        const prefix = 1 + (cut % (texts.length - 1));
        fc.pre(first < 0 || prefix <= first);
        using _scope = new Scope();
        const plain = noGrad(() => slice(model.forward({ input_ids: [texts] }).logits, 1, prefix).dataSync());
        const n = texts.length;
        const ordinary = Int32Array.from({ length: n }, (_, i) => i);
        const targets = new Int32Array(n).fill(-100);
        const run = runPrefix(
          { model, head: model.linearHead! },
          { ids: Int32Array.from(texts), positions: ordinary, targets, prefix },
        );
        const logits = noGrad(
          () => model.forward({ input_ids: [texts.slice(prefix)], past_key_values: run.prefix }).logits,
        );
        run.prefix.dispose();
        if (backend.exact) expect(logits.dataSync()).toEqual(plain);
        else expect([...logits.dataSync()]).toEqual([...plain].map((x) => expect.closeTo(x, 5) as number));
      }),
      { numRuns: Math.ceil(runs / backends.length) },
    );
  });
});
