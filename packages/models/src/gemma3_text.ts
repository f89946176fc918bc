import { GemmaRmsNorm, Linear, Module, type RopeParameters, gemmaRmsNorm, linear } from "@neolog/nn";
import type { Tensor } from "@neolog/tensor";
import * as v from "valibot";
import {
  ModelConfigError,
  type PretrainedConfig,
  ROPE_KEYS,
  activation,
  parseConfig,
  positive,
  ropeParametersOf,
  size,
} from "./config.ts";
import { GEMMA_KEYS, GemmaLike } from "./gemma.ts";
import { Gemma2DecoderLayer } from "./gemma2.ts";
import { type BlockInputs, rotaryAttention, splitHeads } from "./rotaryAttention.ts";
import { WINDOW_KEYS, windowsOf } from "./windows.ts";

const { rope_theta, rope_scaling, rope_parameters } = ROPE_KEYS;
const schema = v.looseObject({
  ...GEMMA_KEYS,
  ...WINDOW_KEYS,
  rope_theta: v.optional(rope_theta, 1_000_000),
  rope_local_base_freq: v.optional(rope_theta, 10_000),
  rope_scaling,
  rope_parameters: v.nullish(v.looseObject({ full_attention: rope_parameters, sliding_attention: rope_parameters })),
  sliding_window_pattern: v.optional(size, 6),
  hidden_activation: v.optional(activation, "gelu_pytorch_tanh"),
  query_pre_attn_scalar: positive,
  attn_logit_softcapping: v.nullish(v.null()), // transformers reads the key and applies no cap
  final_logit_softcapping: v.nullish(positive, null),
});
export type Gemma3TextConfig = v.InferOutput<typeof schema>;

/** How layers of each kind turn; transformers 4 scales the global ones alone. Throws ModelConfigError. */
function ropesOf(
  config: Gemma3TextConfig,
  file: string,
): { readonly local: RopeParameters; readonly global: RopeParameters } {
  const { full_attention, sliding_attention, ...others } = config.rope_parameters ?? {};
  const [other] = Object.keys(others);
  if (other !== undefined) {
    const mustHold = `must hold full_attention and sliding_attention alone, found "${other}"`;
    throw new ModelConfigError(file, "rope_parameters", mustHold);
  }
  const { rope_scaling, rope_theta, rope_local_base_freq } = config;
  return {
    local: ropeParametersOf({ rope_parameters: sliding_attention, rope_theta: rope_local_base_freq }, file),
    global: ropeParametersOf({ rope_parameters: full_attention, rope_scaling, rope_theta }, file),
  };
}

/** Grouped-query attention that norms the queries and keys of each head before they turn. */
export class Gemma3TextAttention extends Module {
  readonly q_proj: Linear;
  readonly k_proj: Linear;
  readonly v_proj: Linear;
  readonly o_proj: Linear;
  readonly q_norm: GemmaRmsNorm;
  readonly k_norm: GemmaRmsNorm;
  readonly #headDim: number;
  readonly #scale: number;

  constructor(config: Gemma3TextConfig) {
    super();
    const { hidden_size, head_dim, num_attention_heads, num_key_value_heads, attention_bias } = config;
    this.#headDim = head_dim;
    this.#scale = config.query_pre_attn_scalar ** -0.5;
    this.q_proj = linear(hidden_size, num_attention_heads * head_dim, attention_bias);
    this.k_proj = linear(hidden_size, num_key_value_heads * head_dim, attention_bias);
    this.v_proj = linear(hidden_size, num_key_value_heads * head_dim, attention_bias);
    this.o_proj = linear(num_attention_heads * head_dim, hidden_size, attention_bias);
    this.q_norm = gemmaRmsNorm(head_dim, config.rms_norm_eps);
    this.k_norm = gemmaRmsNorm(head_dim, config.rms_norm_eps);
  }

  /** x [B, T, hidden] → [B, T, hidden] */
  forward(x: Tensor, block: BlockInputs): Tensor {
    const heads = (projection: Linear): Tensor => splitHeads(projection.forward(x), this.#headDim);
    const q = this.q_norm.forward(heads(this.q_proj)); // [B, H, T, D]
    const k = this.k_norm.forward(heads(this.k_proj)); // [B, K, T, D]
    return this.o_proj.forward(rotaryAttention(q, k, heads(this.v_proj), block, { scale: this.#scale }));
  }
}

/**
 * Five layers with a window and fast angles for each that sees everything at slow ones. Gemma Team 2025,
 * https://arxiv.org/abs/2503.19786, its language model alone; transformers' Gemma3ForCausalLM.
 */
export class Gemma3ForCausalLM extends GemmaLike {
  constructor(config: PretrainedConfig, file = "config.json") {
    const parsed = parseConfig(schema, config, file);
    const { local, global } = ropesOf(parsed, file);
    const windows = windowsOf(parsed, file, (layer) => (layer + 1) % parsed.sliding_window_pattern !== 0);
    const ropes = windows.map((window) => (window === null ? global : local));
    const choices = { ropes, windows, logitCap: parsed.final_logit_softcapping };
    super(config, parsed, choices, () => new Gemma2DecoderLayer(parsed, new Gemma3TextAttention(parsed)), file);
  }
}
