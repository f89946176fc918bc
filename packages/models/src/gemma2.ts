import { GemmaRmsNorm, Linear, Module, gemmaRmsNorm, linear } from "@neolog/nn";
import { type AttentionOptions, type Tensor, add } from "@neolog/tensor";
import * as v from "valibot";
import { type PretrainedConfig, ROPE_KEYS, activation, parseConfig, positive, ropeParametersOf } from "./config.ts";
import { GEMMA_KEYS, GemmaLike, GemmaMlp } from "./gemma.ts";
import { type BlockInputs, rotaryAttention, splitHeads } from "./rotaryAttention.ts";
import { WINDOW_KEYS, windowsOf } from "./windows.ts";

const schema = v.looseObject({
  ...GEMMA_KEYS,
  ...ROPE_KEYS,
  ...WINDOW_KEYS,
  hidden_activation: v.optional(activation, "gelu_pytorch_tanh"),
  query_pre_attn_scalar: positive,
  attn_logit_softcapping: v.nullable(positive),
  final_logit_softcapping: v.nullable(positive),
});
export type Gemma2Config = v.InferOutput<typeof schema>;

/** Grouped-query attention with a scale of its own and capped scores. */
export class Gemma2Attention extends Module {
  readonly q_proj: Linear;
  readonly k_proj: Linear;
  readonly v_proj: Linear;
  readonly o_proj: Linear;
  readonly #headDim: number;
  readonly #options: AttentionOptions;

  constructor(config: Gemma2Config) {
    super();
    const { hidden_size, head_dim, num_attention_heads, num_key_value_heads, attention_bias } = config;
    this.#headDim = head_dim;
    this.#options = { scale: config.query_pre_attn_scalar ** -0.5, softcap: config.attn_logit_softcapping };
    this.q_proj = linear(hidden_size, num_attention_heads * head_dim, attention_bias);
    this.k_proj = linear(hidden_size, num_key_value_heads * head_dim, attention_bias);
    this.v_proj = linear(hidden_size, num_key_value_heads * head_dim, attention_bias);
    this.o_proj = linear(num_attention_heads * head_dim, hidden_size, attention_bias);
  }

  /** x [B, T, hidden] → [B, T, hidden] */
  forward(x: Tensor, block: BlockInputs): Tensor {
    const heads = (projection: Linear): Tensor => splitHeads(projection.forward(x), this.#headDim);
    const [q, k, values] = [heads(this.q_proj), heads(this.k_proj), heads(this.v_proj)];
    return this.o_proj.forward(rotaryAttention(q, k, values, block, this.#options));
  }
}

type Attention = Module & { forward(x: Tensor, block: BlockInputs): Tensor };
type LayerConfig = ConstructorParameters<typeof GemmaMlp>[0] & { readonly hidden_activation: string };

/** Norms on both sides: x + norm(attention(norm x)), then + norm(mlp(norm x)). */
export class Gemma2DecoderLayer extends Module {
  readonly self_attn: Attention;
  readonly mlp: GemmaMlp;
  readonly input_layernorm: GemmaRmsNorm;
  readonly post_attention_layernorm: GemmaRmsNorm;
  readonly pre_feedforward_layernorm: GemmaRmsNorm;
  readonly post_feedforward_layernorm: GemmaRmsNorm;

  constructor(config: LayerConfig, attention: Attention) {
    super();
    const { hidden_size, hidden_activation, rms_norm_eps } = config;
    this.self_attn = attention;
    this.mlp = new GemmaMlp(config, hidden_activation);
    this.input_layernorm = gemmaRmsNorm(hidden_size, rms_norm_eps);
    this.post_attention_layernorm = gemmaRmsNorm(hidden_size, rms_norm_eps);
    this.pre_feedforward_layernorm = gemmaRmsNorm(hidden_size, rms_norm_eps);
    this.post_feedforward_layernorm = gemmaRmsNorm(hidden_size, rms_norm_eps);
  }

  /** x [B, T, hidden] → [B, T, hidden] */
  forward(x: Tensor, block: BlockInputs): Tensor {
    const attention = this.self_attn.forward(this.input_layernorm.forward(x), block);
    const attended = add(x, this.post_attention_layernorm.forward(attention));
    const fed = this.mlp.forward(this.pre_feedforward_layernorm.forward(attended));
    return add(attended, this.post_feedforward_layernorm.forward(fed));
  }
}

/**
 * Every other layer has a window, and logits are capped. Gemma Team 2024, https://arxiv.org/abs/2408.00118; transformers'
 * Gemma2ForCausalLM.
 */
export class Gemma2ForCausalLM extends GemmaLike {
  constructor(config: PretrainedConfig, file = "config.json") {
    const parsed = parseConfig(schema, config, file);
    const rope = ropeParametersOf(parsed, file);
    const windows = windowsOf(parsed, file, (layer) => layer % 2 === 0);
    const choices = { ropes: windows.map(() => rope), windows, logitCap: parsed.final_logit_softcapping };
    super(config, parsed, choices, () => new Gemma2DecoderLayer(parsed, new Gemma2Attention(parsed)), file);
  }
}
