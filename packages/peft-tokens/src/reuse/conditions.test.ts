import { noGrad } from "@neolog/autograd";
import { AutoModelForCausalLM, KvCache, type LabelledBatch } from "@neolog/models";
import { Scope, type Tensor, assign, full } from "@neolog/tensor";
import { describe, expect, test } from "vitest";
import {
  type AnyPeftModel,
  LoraConfig,
  type PeftConfig,
  type PeftModel,
  ReusedLoss,
  TrainableTokensConfig,
  addTokens,
  getPeftModel,
} from "../index.ts";
import { type BaseName, configOf, listener, makeBase, setRows } from "../testing.ts";
import { expectPlain } from "./compare.ts";

const input_ids = [
  [2, 3, 4, 7, 5],
  [2, 3, 4, 5, 6],
];
const BATCH = { input_ids, labels: input_ids };
const rows = (more: object = {}): PeftConfig => new TrainableTokensConfig({ token_indices: [7], ...more });
const wrapped = (name: BaseName, config: PeftConfig = rows()): PeftModel =>
  getPeftModel(makeBase(name), config, { onWarning: () => {} });

const normOf = (peft: PeftModel): Tensor =>
  peft
    .getBaseModel()
    .parameters()
    .find((t) => t.shape.length === 1)!;
const lora = (more: object = {}): PeftConfig =>
  new LoraConfig({ r: 2, target_modules: ["q_proj"], init_lora_weights: false, trainable_token_indices: [7], ...more });

describe("A-87: off, and plain, where a condition is violated", () => {
  const cases: readonly (readonly [string, () => AnyPeftModel, object, string])[] = [
    ["bidirectional attention", () => wrapped("bert, tied"), {}, "attention is not causal"],
    ["an encoder-decoder", () => wrapped("t5, tied"), {}, "attention is not causal"],
    [
      "LoRA in effect",
      () => wrapped("llama", lora()),
      {},
      "default adapts model.layers.0.self_attn.q_proj with more than token rows",
    ],
    [
      "LoRA's dropout in training",
      () => wrapped("llama", lora({ lora_dropout: 0.5 })),
      {},
      "dropout is active in model.layers.0.self_attn.q_proj",
    ],
    [
      "modules in full",
      () => wrapped("llama", lora({ target_modules: ["q_proj"], modules_to_save: ["norm"] })),
      {},
      "default adapts model.layers.0.self_attn.q_proj with more than token rows",
    ],
    [
      "a base that trains",
      () => {
        const peft = wrapped("llama");
        normOf(peft).requiresGrad = true;
        return peft;
      },
      {},
      "base_model.model.model.layers.0.input_layernorm.weight trains",
    ],
    [
      "rows of another table",
      () => wrapped("gpt2", rows({ token_indices: [2], target_modules: ["wpe", "wte"] })),
      {},
      "rows of transformer.wpe are in effect, which is neither the input embedding nor the head",
    ],
    [
      "packed rows",
      () => wrapped("llama"),
      { position_ids: [[0, 1, 2, 0, 1], [0, 1, 2, 3, 4]] }, // prettier-ignore
      "a row holds several texts",
    ],
    [
      "a gap in a row",
      () => wrapped("llama"),
      { attention_mask: [[1, 1, 0, 1, 1], [1, 1, 1, 1, 1]] }, // prettier-ignore
      "attention_mask has a gap in a row, or labels count at its padding",
    ],
    [
      "a label that padding predicts",
      () => wrapped("llama"),
      { attention_mask: [[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]] }, // prettier-ignore
      "labels count at padding",
    ],
  ];
  test.each(cases)("%s", (_, make, more, why) => {
    const peft = make();
    const reuse = new ReusedLoss(peft);
    const seed = peft.dropoutState;
    using _scope = new Scope();
    const batch = { ...BATCH, ...more } as LabelledBatch;
    const plain = peft.loss(batch as never).dataSync();
    peft.dropoutState = seed;
    expect(reuse.loss(batch).dataSync()).toEqual(plain);
    expect(reuse.report).toMatchObject({ on: false, why, hits: 0, misses: 0, bytes: 0, plain: 1 });
    expect(reuse.estimate([batch])).toEqual({ bytes: 0, rows: 2, off: 2, why });
  });
  test("dropout of LoRA that is not in training is still LoRA", () => {
    const peft = wrapped("llama", lora({ lora_dropout: 0.5 }));
    peft.eval();
    const reuse = new ReusedLoss(peft);
    expectPlain(peft, reuse, BATCH);
    expect(reuse.report.why).toBe("default adapts model.layers.0.self_attn.q_proj with more than token rows");
  });
  test("biases that train", async () => {
    const peft = wrapped("llama with biases", lora({ bias: "all" }));
    await peft.mergeAdapter();
    const reuse = new ReusedLoss(peft);
    expectPlain(peft, reuse, BATCH);
    expect(reuse.report.why).toMatch(/bias trains$/);
  });
  test("samples with adapters of their own", () => {
    const peft = wrapped("llama");
    setRows(peft, "default");
    const reuse = new ReusedLoss(peft);
    expectPlain(peft, reuse, BATCH, true, { adapterNames: ["__base__", "default"] });
    expect(reuse.report).toMatchObject({ on: false, why: "samples have adapters of their own" });
  });
  test("positions that are cached already", () => {
    const peft = wrapped("llama");
    const reuse = new ReusedLoss(peft);
    using _scope = new Scope();
    const batch = { input_ids: [[4, 5], [5, 6]], labels: [[4, 5], [5, 6]] }; // prettier-ignore
    const [again, plain] = [reuse, peft].map((from) =>
      noGrad(() => {
        const past_key_values = new KvCache();
        peft.getBaseModel().lastHiddenState({ input_ids: [[2], [3]], past_key_values });
        return from.loss({ ...batch, past_key_values }).dataSync();
      }),
    );
    expect(again).toEqual(plain);
    expect(reuse.report).toMatchObject({ on: false, why: "positions are cached already" });
  });
  test.each([
    ["dynamic", { factor: 2 }, 4],
    ["longrope", { short_factor: [1, 1], long_factor: [2, 3], original_max_position_embeddings: 4 }, 64],
  ])("rows whose length decides the angles: %s", (rope_type, more, max_position_embeddings) => {
    const config = { ...configOf("llama, untied"), max_position_embeddings };
    const rope_parameters = { rope_type, rope_theta: 10_000, ...more };
    const model = AutoModelForCausalLM.fromConfig({ ...config, rope_parameters } as never, { seed: 1, std: 0.5 });
    const peft = getPeftModel(model, rows());
    setRows(peft, "default");
    const reuse = new ReusedLoss(peft);
    expectPlain(peft, reuse, BATCH);
    expect(reuse.report).toMatchObject({
      on: false,
      why: "angles of rotation depend on the length of rows, beyond 4 positions",
    });
    const short = input_ids.map((ids) => ids.slice(0, 4));
    expectPlain(peft, reuse, { input_ids: short, labels: short });
    expect(reuse.report.on).toBe(true);
    reuse.dispose();
  });
});

describe("A-87: what was kept is forgotten when the base changes", () => {
  const changes: readonly (readonly [string, (peft: PeftModel) => void | Promise<void>])[] = [
    ["merge", (peft) => peft.mergeAdapter({ adapterNames: ["other"] })],
    [
      "merge and unmerge",
      async (peft) => {
        await peft.mergeAdapter({ adapterNames: ["other"] });
        peft.unmergeAdapter();
      },
    ],
    ["more tokens", (peft) => void addTokens(peft, 2)],
    ["a weight that is written", (peft) => put(normOf(peft))],
  ];
  const put = (t: Tensor): void => {
    using _scope = new Scope();
    assign(t, full(t.shape, 0.25));
  };
  test.each(changes)("%s", async (_, change) => {
    for (const name of ["llama", "llama tied"]) {
      const { onWarning } = listener();
      const peft = getPeftModel(makeBase(name), rows(), { onWarning });
      peft.addAdapter("other", new TrainableTokensConfig({ token_indices: [3] }));
      setRows(peft, "other");
      const reuse = new ReusedLoss(peft);
      expectPlain(peft, reuse, BATCH);
      expectPlain(peft, reuse, BATCH);
      expect(reuse.report).toMatchObject({ hits: 2, misses: 2 });
      await change(peft);
      expectPlain(peft, reuse, BATCH);
      expect(reuse.report).toMatchObject({ on: true, hits: 2 });
      expect(reuse.report.misses).toBeGreaterThan(2);
      reuse.dispose();
    }
  });
  test("but not when the adapter changes", async () => {
    const peft = wrapped("llama tied");
    const files = new Map<string, Uint8Array>();
    setRows(peft, "default");
    await peft.savePretrained(files);
    const reuse = new ReusedLoss(peft);
    expectPlain(peft, reuse, BATCH);
    await peft.hotswapAdapter(files, "default");
    setRows(peft, "default", (slot, column) => Math.cos(slot + column));
    expectPlain(peft, reuse, BATCH);
    expect(reuse.report).toMatchObject({ hits: 2, misses: 2 });
    reuse.dispose();
  });
});
