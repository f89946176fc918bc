import { Linear, Module, RmsNorm, linear, rmsNorm } from "@neolog/nn";
import type { Tensor } from "@neolog/tensor";
import * as v from "valibot";
import { type PretrainedConfig, parseConfig, size } from "./config.ts";
import { LLAMA_KEYS, type LlamaConfig, LlamaDecoderLayer, LlamaLike, llamaConfig } from "./llama.ts";
import { type BlockInputs, rotaryAttention, splitHeads } from "./rotaryAttention.ts";
import { LATER_WINDOW_KEYS, laterWindowsOf } from "./windows.ts";

const schema = v.looseObject({
  ...LLAMA_KEYS,
  ...LATER_WINDOW_KEYS,
  attention_bias: v.optional(v.boolean(), false),
  // transformers' own values for these, where a config lacks them, are those of one checkpoint
  num_key_value_heads: v.nullable(size),
  head_dim: size,
});

/** Grouped-query attention that norms the queries and keys of each head before they turn. */
export class Qwen3Attention extends Module {
  readonly q_proj: Linear;
  readonly k_proj: Linear;
  readonly v_proj: Linear;
  readonly o_proj: Linear;
  readonly q_norm: RmsNorm;
  readonly k_norm: RmsNorm;
  readonly #headDim: number;

  constructor(config: LlamaConfig) {
    super();
    const { hidden_size, num_attention_heads, num_key_value_heads, head_dim, qkv_bias, o_bias, rms_norm_eps } = config;
    this.#headDim = head_dim;
    this.q_proj = linear(hidden_size, num_attention_heads * head_dim, qkv_bias);
    this.k_proj = linear(hidden_size, num_key_value_heads * head_dim, qkv_bias);
    this.v_proj = linear(hidden_size, num_key_value_heads * head_dim, qkv_bias);
    this.o_proj = linear(num_attention_heads * head_dim, hidden_size, o_bias);
    this.q_norm = rmsNorm(head_dim, rms_norm_eps);
    this.k_norm = rmsNorm(head_dim, rms_norm_eps);
  }

  /** x [B, T, hidden] → [B, T, hidden] */
  forward(x: Tensor, block: BlockInputs): Tensor {
    const heads = (projection: Linear): Tensor => splitHeads(projection.forward(x), this.#headDim);
    const q = this.q_norm.forward(heads(this.q_proj)); // [B, H, T, D]
    const k = this.k_norm.forward(heads(this.k_proj)); // [B, K, T, D]
    return this.o_proj.forward(rotaryAttention(q, k, heads(this.v_proj), block));
  }
}

/** Llama with normed queries and keys. Qwen team 2025, https://arxiv.org/abs/2505.09388; transformers' Qwen3ForCausalLM. */
export class Qwen3ForCausalLM extends LlamaLike {
  constructor(config: PretrainedConfig, file = "config.json") {
    const given = parseConfig(schema, config, file);
    const { attention_bias } = given;
    const choices = { qkv_bias: attention_bias, o_bias: attention_bias, windows: laterWindowsOf(given, file) };
    const parsed = llamaConfig(given, file, choices);
    super(config, parsed, () => new LlamaDecoderLayer(parsed, new Qwen3Attention(parsed)));
  }
}
