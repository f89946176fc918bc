import { type Embedding, Module, replaceModule, stateDict } from "@neolog/nn";
import { type Tensor, add, cast } from "@neolog/tensor";
import { expect, test } from "vitest";
import { AutoModelForCausalLM } from "./autoModel.ts";
import type { CausalLM } from "./causalLm.ts";
import type { PretrainedConfig } from "./config.ts";
import { TINY_GEMMA, TINY_GEMMA2, TINY_GEMMA3_TEXT } from "./testing.ts";

/** Adds one to what the embedding gives. */
class Shifted extends Module {
  readonly base_layer: Embedding;
  constructor(base: Module) {
    super();
    this.base_layer = base as Embedding;
  }
  forward(ids: Int32Array): Tensor {
    return add(this.base_layer.forward(ids), 1);
  }
}

const logits = (model: CausalLM) => [...model.forward({ input_ids: [[1, 2, 3, 4, 5]] }).logits.dataSync()];
const build = (config: PretrainedConfig) => AutoModelForCausalLM.fromConfig(config, { seed: 2, std: 0.5 });

test("norms start at 1, which is stored as 0", () => {
  for (const config of [TINY_GEMMA, TINY_GEMMA2, TINY_GEMMA3_TEXT]) {
    const norms = [...stateDict(build(config))].filter(([key]) => /norm/.test(key));
    expect(norms.length).toBeGreaterThan(0);
    for (const [key, t] of norms)
      expect(
        t.dataSync().every((x) => x === 0),
        key,
      ).toBe(true);
  }
});

// transformers' embed_scale buffer takes the dtype of the table: √12 is 3.46875 in bfloat16, 3.4648438 in float16.
test.each([
  ["float32", Math.fround(Math.sqrt(12))],
  ["bfloat16", 3.46875],
  ["float16", 3.46484375],
] as const)("the embedding's scale is rounded to %s with the table, adapted or not", (dtype, scale) => {
  const model = build({ ...TINY_GEMMA, tie_word_embeddings: false });
  const table = model.moduleAt(model.embeddingPath) as Embedding;
  table.weight = cast(table.weight, dtype);
  const row = Array.from(table.forward(Int32Array.of(1)).dataSync(), (x) => Math.fround(x * scale));
  const embedded = () => model.forward({ input_ids: [[1]], output_hidden_states: true }).hidden_states![0]!.dataSync();
  expect([...embedded()]).toEqual(row);
  replaceModule(model, model.embeddingPath, (base) => new Shifted(base));
  expect(embedded()[0]! - row[0]!).toBeCloseTo(scale, 6);
});

test('"gelu" of the first releases means its approximation', () => {
  expect(logits(build({ ...TINY_GEMMA, hidden_act: "gelu" }))).toEqual(logits(build(TINY_GEMMA)));
  expect(logits(build({ ...TINY_GEMMA, hidden_activation: "gelu_pytorch_tanh" }))).toEqual(logits(build(TINY_GEMMA)));
  expect(logits(build({ ...TINY_GEMMA, hidden_act: "relu" }))).not.toEqual(logits(build(TINY_GEMMA)));
});

test("gemma2: logits, losses and kept logits stay below the cap", () => {
  const model = build({ ...TINY_GEMMA2, final_logit_softcapping: 0.01 });
  const input_ids = [[1, 2, 3, 4, 5]];
  expect(Math.max(...logits(model).map(Math.abs))).toBeLessThan(0.01);
  const { loss } = model.forward({ input_ids, labels: input_ids });
  expect(Math.abs(loss!.dataSync()[0]! - Math.log(23))).toBeLessThan(0.02);
  const kept = model.forward({ input_ids, logits_to_keep: 1 }).logits;
  expect([...kept.dataSync()]).toEqual(logits(model).slice(-23));
});

test("each key of the config changes what is computed", () => {
  const changed = (config: PretrainedConfig, changes: object) =>
    expect(logits(build({ ...config, ...changes })), JSON.stringify(changes)).not.toEqual(logits(build(config)));
  changed(TINY_GEMMA, { rope_theta: 100 });
  changed(TINY_GEMMA2, { query_pre_attn_scalar: 24 });
  changed(TINY_GEMMA2, { attn_logit_softcapping: null });
  changed(TINY_GEMMA2, { final_logit_softcapping: null });
  changed(TINY_GEMMA2, { sliding_window: 2 });
  changed(TINY_GEMMA2, { layer_types: ["full_attention", "sliding_attention"] });
  changed(TINY_GEMMA3_TEXT, { query_pre_attn_scalar: 24 });
  changed(TINY_GEMMA3_TEXT, { final_logit_softcapping: 1 });
  changed(TINY_GEMMA3_TEXT, { sliding_window_pattern: 3 });
  changed(TINY_GEMMA3_TEXT, { rope_theta: 100 });
  changed(TINY_GEMMA3_TEXT, { rope_local_base_freq: 100 });
  changed(TINY_GEMMA3_TEXT, { rope_scaling: { rope_type: "linear", factor: 8 } });
});

test("gemma3_text: both spellings of angles and windows are one", () => {
  const old = { rope_theta: 1000, rope_local_base_freq: 100, rope_scaling: { type: "linear", factor: 8 } };
  const now = {
    rope_parameters: {
      full_attention: { rope_type: "linear", factor: 8, rope_theta: 1000 },
      sliding_attention: { rope_type: "default", rope_theta: 100 },
    },
    layer_types: ["sliding_attention", "full_attention", "sliding_attention"],
    sliding_window_pattern: undefined,
  };
  expect(logits(build({ ...TINY_GEMMA3_TEXT, ...now }))).toEqual(logits(build({ ...TINY_GEMMA3_TEXT, ...old })));
});
