import { expect, test } from "vitest";
import { AutoModelForCausalLM } from "./autoModel.ts";
import { TINY_GPT_NEOX } from "./testing.ts";

const logits = (changes: object) => [
  ...AutoModelForCausalLM.fromConfig({ ...TINY_GPT_NEOX, ...changes }, { seed: 2, std: 0.5 })
    .forward({ input_ids: [[1, 2, 3]] })
    .logits.dataSync(),
];

test("each key of the config changes what is computed", () => {
  for (const changes of [
    { use_parallel_residual: false },
    { rotary_pct: 1 },
    { rotary_emb_base: 10 },
    { hidden_act: "relu" },
  ]) {
    expect(logits(changes), JSON.stringify(changes)).not.toEqual(logits({}));
  }
});

test("both spellings of the angles are one; a quarter of each head turns where neither is given", () => {
  const rope_parameters = { rope_type: "default", rope_theta: 10, partial_rotary_factor: 0.7 };
  expect(logits({ rotary_pct: undefined, rope_parameters })).toEqual(logits({ rotary_pct: 0.7, rotary_emb_base: 10 }));
  expect(logits({ hidden_size: 16, rotary_pct: undefined })).toEqual(logits({ hidden_size: 16, rotary_pct: 0.25 }));
});
