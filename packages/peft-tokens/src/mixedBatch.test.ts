import { backward } from "@neolog/autograd";
import { Scope, type Tensor, defaultBackend, setDefaultBackend } from "@neolog/tensor";
import { computingBackends } from "@neolog/tensor/testing";
import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { type PeftModel, type SampleAdapters, TrainableTokensConfig, getPeftModel } from "./index.ts";
import { BATCH, type BaseName, caught, makeBase, setRows } from "./testing.ts";

const NAMES: BaseName[] = ["llama", "llama tied", "gpt2", "gpt2 untied"];
const IDS = { default: [7, 1, 4], second: [2, 7], third: [5, 9] } as const;

/** Three adapters, the first two of which share id 7; "third" is active. */
function withThree(base: BaseName): PeftModel {
  const config = (name: keyof typeof IDS) => new TrainableTokensConfig({ token_indices: IDS[name] });
  const peft = getPeftModel(makeBase(base), config("default"), { onWarning: () => {} });
  for (const name of ["second", "third"] as const) peft.addAdapter(name, config(name));
  setRows(peft, "default");
  setRows(peft, "second", (slot, column) => slot - column / 4);
  setRows(peft, "third", (slot, column) => Math.cos(slot + column));
  peft.setAdapter("third");
  return peft;
}
const sequence = fc.array(fc.nat(10), { minLength: 5, maxLength: 5 });
const sample: fc.Arbitrary<SampleAdapters> = fc.constantFrom<SampleAdapters[]>(
  "__base__",
  "default",
  "second",
  "third",
  ["third", "default"],
  ["second", "third"],
  [],
);
const batch = fc.array(fc.tuple(sequence, sample), { minLength: 1, maxLength: 4 });

/** Logits of each sample. */
function rowsOf(peft: PeftModel, input_ids: number[][], adapterNames?: SampleAdapters[]): Float32Array[] {
  using _scope = new Scope();
  const { logits } = peft.forward({ input_ids }, adapterNames ? { adapterNames } : {});
  const values = logits.dataSync() as Float32Array;
  const each = values.length / input_ids.length;
  return input_ids.map((_, i) => values.slice(i * each, (i + 1) * each));
}
/** Logits of one sample with these adapters active; the active ones are as before afterwards. */
function alone(peft: PeftModel, ids: number[], names: SampleAdapters): Float32Array {
  const before = peft.activeAdapters;
  peft.setAdapter([names].flat().filter((name) => name !== "__base__"));
  const [row] = rowsOf(peft, [ids]);
  peft.setAdapter(before);
  return row!;
}

describe.each(await computingBackends())("a mixed batch on $title", ({ backend }) => {
  beforeAll(() => setDefaultBackend(backend));

  test.each(NAMES)("A-11 T-1 %s: each row is that of the sample alone, and the active adapter stays", (name) => {
    const peft = withThree(name);
    fc.assert(
      fc.property(batch, (samples) => {
        const ids = samples.map(([sequence]) => sequence);
        const names = samples.map(([, adapters]) => adapters);
        const mixed = rowsOf(peft, ids, names);
        mixed.forEach((row, i) => expect(row).toEqual(alone(peft, ids[i]!, names[i]!)));
        expect(peft.activeAdapters).toEqual(["third"]);
      }),
      { numRuns: 30 },
    );
  });

  test.each(NAMES)("P-22 %s: permuting samples permutes rows, splitting the batch changes nothing", (name) => {
    const peft = withThree(name);
    fc.assert(
      fc.property(batch, fc.nat(), (samples, at) => {
        const ids = samples.map(([sequence]) => sequence);
        const names = samples.map(([, adapters]) => adapters);
        const whole = rowsOf(peft, ids, names);
        expect(rowsOf(peft, ids.toReversed(), names.toReversed())).toEqual(whole.toReversed());
        const cut = at % samples.length;
        if (cut === 0) return;
        const parts = [
          ...rowsOf(peft, ids.slice(0, cut), names.slice(0, cut)),
          ...rowsOf(peft, ids.slice(cut), names.slice(cut)),
        ];
        expect(parts).toEqual(whole);
      }),
      { numRuns: 15 },
    );
  });

  test.each(NAMES)("A-86 %s: gradients are the sums of separate runs, each adapter's from its own samples", (name) => {
    const peft = withThree(name);
    const names: SampleAdapters[] = ["default", "__base__", ["third", "second"], "default"];
    const ids = [
      [7, 1, 7, 4],
      [7, 2, 5, 9],
      [2, 5, 7, 9],
      [4, 0, 1, 1],
    ];
    const summed = new Map<string, Float64Array>();
    names.forEach((adapters, i) => {
      if (adapters === "__base__") return;
      peft.setAdapter(adapters);
      for (const [key, grad] of gradients(peft, [ids[i]!])) {
        const sum = summed.get(key) ?? new Float64Array(grad.length);
        grad.forEach((value, j) => (sum[j]! += value / ids.length)); // the mixed loss is a mean over all samples
        summed.set(key, sum);
      }
    });
    peft.setAdapter([]);
    peft.setRequiresGrad(["default", "second", "third"]);
    const mixed = gradients(peft, ids, names);
    expect([...mixed.keys()].toSorted()).toEqual([...summed.keys()].toSorted());
    for (const [key, grad] of mixed) {
      grad.forEach((value, j) => expect(Math.abs(value - summed.get(key)![j]!)).toBeLessThanOrEqual(1e-5));
    }
    peft.setRequiresGrad("second", false);
    expect([...gradients(peft, ids, names).keys()].some((key) => key.startsWith("second"))).toBe(false);
  });

  test.each(NAMES)("A-72 %s: generates for base and adapters interleaved as in separate runs", async (name) => {
    const peft = withThree(name);
    const adapterNames: SampleAdapters[] = ["default", "__base__", "second", "__base__"];
    const input_ids = [
      [7, 1],
      [7, 1],
      [7, 2],
      [3, 2],
    ];
    const together = await peft.generate({ input_ids, max_new_tokens: 6, adapterNames });
    for (const [i, adapter] of adapterNames.entries()) {
      peft.setAdapter(adapter === "__base__" ? [] : adapter);
      const [row] = await peft.generate({ input_ids: [input_ids[i]!], max_new_tokens: 6 });
      expect(together[i]).toEqual(row);
    }
    const sampled = { max_new_tokens: 4, do_sample: true, seed: 5, num_return_sequences: 2 };
    peft.setAdapter([]);
    const two = await peft.generate({
      input_ids: input_ids.slice(0, 2),
      ...sampled,
      adapterNames: ["default", "second"],
    });
    const doubled = [input_ids[0]!, input_ids[0]!, input_ids[1]!, input_ids[1]!];
    const four = await peft.generate({
      input_ids: doubled,
      ...sampled,
      num_return_sequences: 1,
      adapterNames: ["default", "default", "second", "second"],
    });
    expect(two).toEqual(four);
  });

  test("disabled wins, and nothing stays allocated", async () => {
    const peft = withThree("llama tied");
    const { live } = defaultBackend();
    const mixed = () => rowsOf(peft, BATCH.input_ids, ["default", "third"]);
    const enabled = mixed();
    peft.disableAdapterLayers();
    const base = mixed();
    expect(base).toEqual(rowsOf(peft, BATCH.input_ids));
    peft.enableAdapterLayers();
    expect(mixed()).toEqual(enabled);
    expect(enabled).not.toEqual(base);
    await peft.generate({ input_ids: [[1], [7]], max_new_tokens: 2, adapterNames: ["default", "third"] });
    expect(defaultBackend().live).toBe(live);
  });

  test("says what does not fit, and changes nothing", async () => {
    const peft = withThree("llama");
    const before = rowsOf(peft, BATCH.input_ids);
    const refuse = (adapterNames: unknown) =>
      caught(() => peft.forward(BATCH, { adapterNames: adapterNames as SampleAdapters[] }));
    expect(await refuse(["default"])).toMatchObject({
      name: "ConfigError",
      code: "ARGUMENT",
      message: "adapterNames: must name one adapter for each of 2 samples, got 1",
    });
    expect(await refuse("default")).toMatchObject({ code: "ARGUMENT" });
    expect(await refuse(["a", ["default", "b"]])).toMatchObject({
      name: "AdapterError",
      code: "UNKNOWN",
      message: "adapterNames: adapters must be among __base__, default, second, third, got a, b",
    });
    expect(await refuse(["third", ["default", "second"]])).toMatchObject({ name: "AdapterError", code: "OVERLAP" });
    await peft.mergeAdapter({ adapterNames: ["third"] });
    expect(await refuse(["default", "__base__"])).toMatchObject({
      code: "MERGED",
      message: "adapterNames: nothing may be merged in a mixed batch, got third; unmerge first",
    });
    peft.unmergeAdapter();
    expect(rowsOf(peft, BATCH.input_ids)).toEqual(before);
    const wrong = caught(() => peft.generate({ input_ids: [[1]], adapterNames: [] }));
    expect(await wrong).toMatchObject({ code: "ARGUMENT" });
  });
});

test("samples are mixed in blocks that are computed again", () => {
  const rows = withThree("llama");
  rows.setRequiresGrad(["default", "second"]);
  const adapterNames = ["default", "second"];
  const plain = gradients(rows, BATCH.input_ids, adapterNames);
  rows.getBaseModel().gradientCheckpointing = true;
  expect(gradients(rows, BATCH.input_ids, adapterNames)).toEqual(plain);
});

/** "adapter module" → gradient of the mean loss over all predicted tokens of the batch. */
function gradients(peft: PeftModel, input_ids: number[][], adapterNames?: SampleAdapters[]): Map<string, Float32Array> {
  using _scope = new Scope();
  backward(peft.forward({ input_ids, labels: input_ids }, adapterNames ? { adapterNames } : {}).loss!);
  const found = new Map<string, Float32Array>();
  for (const [path, layer] of peft.layers()) {
    for (const [name, rows] of Object.entries(layer.trainable_tokens_delta)) {
      const grad: Tensor | null = rows.grad;
      if (grad) found.set(`${name} ${path}`, grad.dataSync().slice() as Float32Array);
      rows.grad = null;
    }
  }
  return found;
}
