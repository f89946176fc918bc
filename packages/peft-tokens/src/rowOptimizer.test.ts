import { AdamW, type AdamWOptions } from "@neolog/autograd";
import { toHost } from "@neolog/models";
import { Scope, type Tensor, mul, persist, setDefaultBackend } from "@neolog/tensor";
import { computingBackends } from "@neolog/tensor/testing";
import { beforeAll, describe, expect, test } from "vitest";
import {
  LoraConfig,
  type PeftModel,
  TrainableTokensConfig,
  getPeftModel,
  loraParameters,
  originalRows,
  tokenParameters,
  touchedRows,
} from "./index.ts";
import { type BaseName, caught, isTied, logitsOf, makeBase, setRows } from "./testing.ts";

const IDS = [7, 1, 4, 9];
const adapted = (base: BaseName, target_modules: string | null = null): PeftModel =>
  getPeftModel(makeBase(base), new TrainableTokensConfig({ token_indices: IDS, target_modules }), {
    onWarning: () => {},
  });
/** 9 is in no batch; 4 only under padding. */
const BATCHES = [
  { input_ids: [[7, 2, 3, 4]], attention_mask: [[1, 1, 1, 0]], labels: [[7, 2, 3, -100]] },
  { input_ids: [[1, 2, 1, 0]], attention_mask: [[1, 1, 1, 1]], labels: [[1, 2, 1, 0]] },
];
const flagsOf = (peft: PeftModel, ...batches: typeof BATCHES): number[] =>
  Array.from(touchedRows(peft, ...batches).get(tokenParameters(peft)[0]!)!);
const rowsOf = (peft: PeftModel): number[][] => {
  const values = [...tokenParameters(peft)[0]!.dataSync()];
  return IDS.map((_, i) => values.slice(i * 6, i * 6 + 6));
};

function train(peft: PeftModel, optimizer: AdamW, steps: number, from = 0): void {
  for (let step = from; step < from + steps; step++) {
    using _step = new Scope();
    const batch = BATCHES[step % 2]!;
    peft.backward(peft.forward(batch).loss!);
    optimizer.step(touchedRows(peft, batch));
    optimizer.zeroGrad();
  }
}
const MODES: [string, (peft: PeftModel) => AdamWOptions][] = [
  ["plain", () => ({})],
  ["lazy", () => ({ rows: "lazy" })],
  ["toward the original", (peft) => ({ decayToward: originalRows(peft) })],
  ["lazy, toward the original", (peft) => ({ rows: "lazy", decayToward: originalRows(peft) })],
];

describe("A-88 which rows a step touches", () => {
  test("input side: tokens at positions that are no padding, over all batches of the step", () => {
    const peft = adapted("llama");
    expect(flagsOf(peft, BATCHES[0]!)).toEqual([1, 0, 0, 0]);
    expect(flagsOf(peft, ...BATCHES)).toEqual([1, 1, 0, 0]);
  });
  test("whatever form ids have", () => {
    const host = Object.fromEntries(Object.entries(BATCHES[0]!).map(([key, rows]) => [key, toHost(key, rows)]));
    expect(flagsOf(adapted("llama"), host as never)).toEqual([1, 0, 0, 0]);
  });
  test("head side: all rows where there was a target", () => {
    const noTarget = { ...BATCHES[0]!, labels: [[7, -100, -100, -100]] };
    for (const peft of [adapted("llama tied"), adapted("llama", "lm_head")]) {
      expect(flagsOf(peft, BATCHES[0]!)).toEqual([1, 1, 1, 1]);
    }
    expect(flagsOf(adapted("llama tied"), noTarget)).toEqual([1, 0, 0, 0]);
    expect(flagsOf(adapted("llama", "lm_head"), noTarget)).toEqual([0, 0, 0, 0]);
  });
  test("one side of a tie: that side alone", () => {
    const config = new TrainableTokensConfig({ token_indices: IDS });
    const input = getPeftModel(makeBase("llama tied"), config, { sides: "input" });
    const output = getPeftModel(makeBase("llama tied"), config, { sides: "output" });
    expect(flagsOf(input, BATCHES[0]!)).toEqual([1, 0, 0, 0]);
    expect(flagsOf(output, { ...BATCHES[0]!, labels: [[7, -100, -100, -100]] })).toEqual([0, 0, 0, 0]);
  });
  test("only rows of adapters have an original", async () => {
    const peft = adapted("llama");
    const error = await caught(() => originalRows(peft)(makeBase("llama").parameters()[0]!));
    expect(error).toMatchObject({ name: "AdapterError", code: "UNKNOWN" });
  });
});

describe.each(await computingBackends())("9.7 optimizers over rows on $title", ({ backend }) => {
  beforeAll(() => setDefaultBackend(backend));

  test.each(["llama", "gpt2 untied"])("A-88 %s: lazy rows that no batch touches stay as they are", (base) => {
    const peft = adapted(base);
    setRows(peft, "default");
    const before = rowsOf(peft);
    train(peft, new AdamW(tokenParameters(peft), { lr: 0.1, weight_decay: 0.5, rows: "lazy" }), 4);
    const after = rowsOf(peft);
    expect(after.slice(2)).toEqual(before.slice(2));
    expect(after[0]).not.toEqual(before[0]);
    expect(after[1]).not.toEqual(before[1]);
  });

  test("A-88 decay toward the original keeps fresh rows without a gradient the base's, plain decay does not", () => {
    const [toward, plain] = [adapted("llama"), adapted("llama")];
    const before = rowsOf(toward);
    train(
      toward,
      new AdamW(tokenParameters(toward), { lr: 0.1, weight_decay: 0.5, decayToward: originalRows(toward) }),
      4,
    );
    train(plain, new AdamW(tokenParameters(plain), { lr: 0.1, weight_decay: 0.5 }), 4);
    expect(rowsOf(toward)[3]).toEqual(before[3]);
    expect(rowsOf(plain)[3]).not.toEqual(before[3]);
  });

  test("token rows and LoRA in groups of their own", () => {
    const lora = new LoraConfig({ r: 2, target_modules: ["q_proj"], trainable_token_indices: IDS });
    const peft = getPeftModel(makeBase("llama"), lora, { onWarning: () => {} });
    const copies = (params: readonly Tensor[]): ArrayLike<number>[] => params.map((t) => t.dataSync().slice());
    const [rows, matrices] = [copies(tokenParameters(peft)), copies(loraParameters(peft))];
    const optimizer = new AdamW([
      { params: tokenParameters(peft), lr: 0.1, rows: "lazy" },
      { params: loraParameters(peft), lr: 0 },
    ]);
    train(peft, optimizer, 2);
    expect(copies(loraParameters(peft))).toEqual(matrices);
    expect(copies(tokenParameters(peft))).not.toEqual(rows);
  });

  test.each(["llama", "llama tied"].flatMap((base) => MODES.map(([mode, options]) => [base, mode, options] as const)))(
    "A-91 %s, %s: saved, loaded and trained on ≡ trained without a stop",
    async (base, _, options) => {
      const make = (peft: PeftModel) =>
        new AdamW(tokenParameters(peft), { lr: 0.1, weight_decay: 0.3, ...options(peft) });
      const through = adapted(base);
      train(through, make(through), 7);

      const first = adapted(base);
      const optimizer = make(first);
      train(first, optimizer, 4);
      const files = new Map<string, Uint8Array>();
      await first.savePretrained(files);
      const state = new Map([...optimizer.stateDict()].map(([key, t]) => [key, persist(mul(t, 1))]));

      const again = getPeftModel(makeBase(base), new TrainableTokensConfig({ token_indices: [0] }), {
        adapterName: "x",
        onWarning: () => {},
      });
      await again.loadAdapter(files, "default", { isTrainable: true });
      again.setAdapter("default");
      const resumed = make(again);
      await resumed.loadStateDict(state);
      train(again, resumed, 3, 4);
      expect(logitsOf(again)).toEqual(logitsOf(through));
      expect(rowsOf(again)).toEqual(rowsOf(through));
      expect(isTied(base)).toBe(base === "llama tied");
    },
  );
});
