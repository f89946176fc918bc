import {
  GemmaRmsNorm,
  Linear,
  Module,
  type RopeAngles,
  type RopeParameters,
  TiedHead,
  applyRotary,
  embedding,
  gemmaRmsNorm,
  linear,
  ropeAngles,
  ropeFrequencies,
} from "@neolog/nn";
import { type Tensor, add, attention, div, mul, reshape, tanh, transpose } from "@neolog/tensor";
import * as v from "valibot";
import { CausalLM, type DecoderInputs } from "./causalLm.ts";
import {
  COMMON_KEYS,
  type PretrainedConfig,
  ROPE_KEYS,
  activation,
  checkDivides,
  checkRotaryPairs,
  paddingIdxOf,
  parseConfig,
  positive,
  ropeParametersOf,
  size,
} from "./config.ts";
import { GemmaMlp, scaledLookup } from "./gemma.ts";
import type { KvCache } from "./kvCache.ts";
import type { TokenEmbedding, TokenHead } from "./tokenModules.ts";
import { WINDOW_KEYS, windowsOf } from "./windows.ts";

const schema = v.looseObject({
  ...COMMON_KEYS,
  ...ROPE_KEYS,
  ...WINDOW_KEYS,
  hidden_size: size,
  intermediate_size: size,
  num_hidden_layers: size,
  num_attention_heads: size,
  num_key_value_heads: size,
  head_dim: size,
  hidden_activation: v.optional(activation, "gelu_pytorch_tanh"),
  rms_norm_eps: positive,
  max_position_embeddings: size,
  pad_token_id: v.optional(COMMON_KEYS.pad_token_id, 0),
  query_pre_attn_scalar: positive,
  attn_logit_softcapping: v.nullable(positive),
  final_logit_softcapping: v.nullable(positive),
  attention_bias: v.optional(v.boolean(), false),
  use_bidirectional_attention: v.nullish(v.literal(false)),
});
export type Gemma2Config = v.InferOutput<typeof schema>;

/** config.json, checked. Throws ModelConfigError. */
function gemma2Config(config: PretrainedConfig, file: string): Gemma2Config {
  const parsed = parseConfig(schema, config, file);
  const { num_attention_heads, num_key_value_heads } = parsed;
  checkDivides(file, "num_key_value_heads", num_key_value_heads, "num_attention_heads", num_attention_heads);
  return parsed;
}

/** x [...] → [...], bent into (−cap, cap); x itself for null. Bello et al. 2016, https://arxiv.org/abs/1611.09940 */
export const softcap = (x: Tensor, cap: number | null): Tensor => (cap === null ? x : mul(tanh(div(x, cap)), cap));

/** What all layers share. */
interface Shared {
  readonly angles: RopeAngles;
  readonly maskOf: DecoderInputs["maskOf"];
  readonly cache: KvCache | undefined;
}

/** Grouped-query attention with capped scores, over all positions or over the last ones. */
export class Gemma2Attention extends Module {
  readonly q_proj: Linear;
  readonly k_proj: Linear;
  readonly v_proj: Linear;
  readonly o_proj: Linear;
  readonly #layer: number;
  readonly #headDim: number;
  readonly #window: number | null;
  readonly #options: { readonly scale: number; readonly softcap: number | null };

  constructor(config: Gemma2Config, layer: number, window: number | null) {
    super();
    const { hidden_size, head_dim, num_attention_heads, num_key_value_heads, attention_bias } = config;
    this.#layer = layer;
    this.#headDim = head_dim;
    this.#window = window;
    this.#options = { scale: config.query_pre_attn_scalar ** -0.5, softcap: config.attn_logit_softcapping };
    this.q_proj = linear(hidden_size, num_attention_heads * head_dim, attention_bias);
    this.k_proj = linear(hidden_size, num_key_value_heads * head_dim, attention_bias);
    this.v_proj = linear(hidden_size, num_key_value_heads * head_dim, attention_bias);
    this.o_proj = linear(num_attention_heads * head_dim, hidden_size, attention_bias);
  }

  /** x [B, T, hidden] → [B, T, hidden] */
  forward(x: Tensor, { angles, maskOf, cache }: Shared): Tensor {
    const [B, T] = x.shape as [number, number];
    const D = this.#headDim;
    const heads = (y: Tensor): Tensor => transpose(reshape(y, [B, T, y.shape[2]! / D, D]), 1, 2);
    const q = applyRotary(heads(this.q_proj.forward(x)), angles); // [B, H, T, D]
    let key = applyRotary(heads(this.k_proj.forward(x)), angles); // [B, K, T, D]
    let value = heads(this.v_proj.forward(x));
    if (cache) ({ key, value } = cache.update(this.#layer, key, value, this.#window)); // [B, K, S, D]
    const y = transpose(attention(q, key, value, maskOf(this.#window), this.#options), 1, 2); // [B, T, H, D]
    return this.o_proj.forward(reshape(y, [B, T, y.shape[2]! * D]));
  }
}

/** Norms on both sides: x + norm(attention(norm x)), then + norm(mlp(norm x)). */
export class Gemma2DecoderLayer extends Module {
  readonly self_attn: Gemma2Attention;
  readonly mlp: GemmaMlp;
  readonly input_layernorm: GemmaRmsNorm;
  readonly post_attention_layernorm: GemmaRmsNorm;
  readonly pre_feedforward_layernorm: GemmaRmsNorm;
  readonly post_feedforward_layernorm: GemmaRmsNorm;

  constructor(config: Gemma2Config, layer: number, window: number | null) {
    super();
    const { hidden_size, intermediate_size, hidden_activation, rms_norm_eps } = config;
    this.self_attn = new Gemma2Attention(config, layer, window);
    this.mlp = new GemmaMlp(hidden_size, intermediate_size, hidden_activation);
    this.input_layernorm = gemmaRmsNorm(hidden_size, rms_norm_eps);
    this.post_attention_layernorm = gemmaRmsNorm(hidden_size, rms_norm_eps);
    this.pre_feedforward_layernorm = gemmaRmsNorm(hidden_size, rms_norm_eps);
    this.post_feedforward_layernorm = gemmaRmsNorm(hidden_size, rms_norm_eps);
  }

  /** x [B, T, hidden] → [B, T, hidden] */
  forward(x: Tensor, shared: Shared): Tensor {
    const attention = this.self_attn.forward(this.input_layernorm.forward(x), shared);
    const attended = add(x, this.post_attention_layernorm.forward(attention));
    const fed = this.mlp.forward(this.pre_feedforward_layernorm.forward(attended));
    return add(attended, this.post_feedforward_layernorm.forward(fed));
  }
}

/** Scaled embedding, blocks of which every other one has a window, final norm. */
export class Gemma2Model extends Module {
  readonly embed_tokens: TokenEmbedding;
  readonly layers: readonly Gemma2DecoderLayer[];
  readonly norm: GemmaRmsNorm;
  readonly #rope: RopeParameters;
  readonly #headDim: number;
  readonly #maxPositions: number;

  constructor(config: Gemma2Config, file: string) {
    super();
    this.#rope = ropeParametersOf(config, file);
    this.#headDim = config.head_dim;
    this.#maxPositions = config.max_position_embeddings;
    checkRotaryPairs(file, "head_dim", this.#rope, this.#headDim);
    const windows = windowsOf(config, file, (layer) => layer % 2 === 0);
    this.embed_tokens = embedding(config.vocab_size, config.hidden_size, paddingIdxOf(config, file));
    this.layers = windows.map((window, i) => new Gemma2DecoderLayer(config, i, window));
    this.norm = gemmaRmsNorm(config.hidden_size, config.rms_norm_eps);
  }

  /** → the input of every block and the normed output, each [B, T, hidden]; only the last one unless `keepAll`. */
  forward({ ids, positions, maskOf, cache }: DecoderInputs, keepAll: boolean): Tensor[] {
    const length = 1 + positions.reduce((longest, p) => Math.max(longest, p), 0);
    const frequencies = ropeFrequencies(this.#rope, this.#headDim, this.#maxPositions, length);
    const shared = { angles: ropeAngles(frequencies, positions, ids.rows), maskOf, cache };
    let x = scaledLookup(this.embed_tokens, ids.values);
    x = reshape(x, [ids.rows, ids.columns, x.shape[1]!]);
    const states = [];
    for (const layer of this.layers) {
      if (keepAll) states.push(x);
      x = layer.forward(x, shared);
    }
    return [...states, this.norm.forward(x)];
  }
}

/** Gemma Team 2024, https://arxiv.org/abs/2408.00118; transformers' Gemma2ForCausalLM. */
export class Gemma2ForCausalLM extends CausalLM {
  readonly model: Gemma2Model;
  readonly lm_head: TokenHead;
  readonly #softcap: number | null;

  constructor(config: PretrainedConfig, file = "config.json") {
    super(config);
    const parsed = gemma2Config(config, file);
    this.#softcap = parsed.final_logit_softcapping;
    this.model = new Gemma2Model(parsed, file);
    this.lm_head = this.#tied
      ? new TiedHead(() => this.model.embed_tokens)
      : linear(parsed.hidden_size, parsed.vocab_size);
  }

  get embeddingPath(): string {
    return "model.embed_tokens";
  }
  get headPath(): string {
    return "lm_head";
  }
  get tiedPaths(): readonly string[] {
    return this.#tied ? ["lm_head"] : [];
  }
  /** transformers ties Gemma's head unless the config says otherwise. */
  get #tied(): boolean {
    return this.config.tie_word_embeddings ?? true;
  }

  protected hiddenStates(inputs: DecoderInputs, keepAll: boolean): Tensor[] {
    return this.model.forward(inputs, keepAll);
  }
  protected unembed(x: Tensor): Tensor {
    return softcap(this.lm_head.forward(x), this.#softcap);
  }
}
