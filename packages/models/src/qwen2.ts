import * as v from "valibot";
import { type PretrainedConfig, parseConfig, size } from "./config.ts";
import { LLAMA_KEYS, LlamaLike, llamaConfig } from "./llama.ts";
import { LATER_WINDOW_KEYS, laterWindowsOf } from "./windows.ts";

const schema = v.looseObject({
  ...LLAMA_KEYS,
  ...LATER_WINDOW_KEYS,
  num_key_value_heads: v.nullable(size), // transformers' own value for a config without it is that of one checkpoint
});

/**
 * Llama with biases of q, k and v; layers from `max_window_layers` on may have a window. Qwen team 2024,
 * https://arxiv.org/abs/2407.10671; transformers' Qwen2ForCausalLM.
 */
export class Qwen2ForCausalLM extends LlamaLike {
  constructor(config: PretrainedConfig, file = "config.json") {
    const parsed = parseConfig(schema, config, file);
    super(config, llamaConfig(parsed, file, { qkv_bias: true, windows: laterWindowsOf(parsed, file) }));
  }
}
