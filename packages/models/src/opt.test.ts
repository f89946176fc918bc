import { type Embedding, stateDict } from "@neolog/nn";
import { expect, test } from "vitest";
import { AutoModelForCausalLM } from "./autoModel.ts";
import { TINY_OPT } from "./testing.ts";

const build = (changes: object) => AutoModelForCausalLM.fromConfig({ ...TINY_OPT, ...changes }, { seed: 2, std: 0.5 });

test("parts come and go with the config", () => {
  const keys = (changes: object) => [...stateDict(build(changes)).keys()].join(" ");
  expect(keys({})).not.toMatch(/project_/);
  expect(stateDict(build({ word_embed_proj_dim: 8 })).get("model.decoder.project_in.weight")!.shape).toEqual([12, 8]);
  expect(stateDict(build({ word_embed_proj_dim: 8 })).get("model.decoder.project_out.weight")!.shape).toEqual([8, 12]);
  expect(keys({ enable_bias: false })).not.toMatch(/(proj|fc\d)\.bias/);
  expect(keys({ layer_norm_elementwise_affine: false })).not.toMatch(/layer_norm/);
  for (const off of [{ do_layer_norm_before: false }, { _remove_final_layer_norm: true }]) {
    expect(keys(off)).not.toMatch(/decoder\.final_layer_norm/);
  }
});

test("the pad token is 1 where the config says nothing, none where it says null", () => {
  const padding = (changes: object) => (build(changes).moduleAt("model.decoder.embed_tokens") as Embedding).padding_idx;
  expect([{}, { pad_token_id: null }, { pad_token_id: 4 }].map(padding)).toEqual([1, null, 4]);
});

test("positions count from the attention mask and end with the table", () => {
  const read = (inputs: object) => [
    ...build({})
      .forward({ input_ids: [[5, 6, 7]], ...inputs })
      .logits.dataSync(),
  ];
  const attention_mask = [[0, 1, 1]];
  expect(read({ attention_mask }).slice(23)).toEqual(read({ attention_mask, position_ids: [[9, 0, 1]] }).slice(23));
  expect(read({ attention_mask }).slice(23)).not.toEqual(read({ attention_mask, position_ids: [[0, 1, 2]] }).slice(23));
  for (const position of [16, -3]) {
    expect(() => read({ position_ids: [[0, 1, position]] })).toThrow(
      `opt: positions must be in [-2, 16), below max_position_embeddings; shorten the input, got ${position}`,
    );
  }
});
