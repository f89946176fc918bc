import * as v from "valibot";
import { type PretrainedConfig, parseConfig, size } from "./config.ts";
import { LLAMA_KEYS, LlamaLike, llamaConfig } from "./llama.ts";
import { WINDOW_KEYS, sameWindowsOf } from "./windows.ts";

const schema = v.looseObject({
  ...LLAMA_KEYS,
  ...WINDOW_KEYS,
  // transformers' own values for these, where a config lacks them, are those of one checkpoint
  num_key_value_heads: v.nullable(size),
  sliding_window: v.nullable(size),
});

/**
 * Llama without biases, whose layers all see the last `sliding_window` positions. Jiang et al. 2023,
 * https://arxiv.org/abs/2310.06825; transformers' MistralForCausalLM.
 */
export class MistralForCausalLM extends LlamaLike {
  constructor(config: PretrainedConfig, file = "config.json") {
    const parsed = parseConfig(schema, config, file);
    super(config, llamaConfig(parsed, file, { windows: sameWindowsOf(parsed, file) }));
  }
}
