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
import { type Tensor, add, attention, reshape, transpose } from "@neolog/tensor";
import * as v from "valibot";
import { CausalLM, type DecoderInputs } from "./causalLm.ts";
import {
  COMMON_KEYS,
  ModelConfigError,
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
import { softcap } from "./gemma2.ts";
import type { KvCache } from "./kvCache.ts";
import type { TokenEmbedding, TokenHead } from "./tokenModules.ts";
import { WINDOW_KEYS, windowsOf } from "./windows.ts";

const { rope_theta, rope_scaling, rope_parameters } = ROPE_KEYS;
const schema = v.looseObject({
  ...COMMON_KEYS,
  ...WINDOW_KEYS,
  rope_theta,
  rope_scaling,
  rope_local_base_freq: v.optional(positive),
  rope_parameters: v.nullish(v.looseObject({ full_attention: rope_parameters, sliding_attention: rope_parameters })),
  sliding_window_pattern: v.optional(size, 6),
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
  attn_logit_softcapping: v.nullish(v.null()), // transformers reads the key and applies no cap
  final_logit_softcapping: v.nullish(positive, null),
  attention_bias: v.optional(v.boolean(), false),
  use_bidirectional_attention: v.nullish(v.literal(false)),
});
export type Gemma3TextConfig = v.InferOutput<typeof schema>;

/** config.json, checked. Throws ModelConfigError. */
function gemma3TextConfig(config: PretrainedConfig, file: string): Gemma3TextConfig {
  const parsed = parseConfig(schema, config, file);
  const { num_attention_heads, num_key_value_heads, rope_parameters } = parsed;
  checkDivides(file, "num_key_value_heads", num_key_value_heads, "num_attention_heads", num_attention_heads);
  const flat = Object.keys(rope_parameters ?? {}).find((key) => !["full_attention", "sliding_attention"].includes(key));
  if (flat !== undefined) {
    const mustHold = `must hold full_attention and sliding_attention alone, found "${flat}"`;
    throw new ModelConfigError(file, "rope_parameters", mustHold);
  }
  return parsed;
}

/** How layers of a kind turn; transformers 4 scales those that see everything alone. */
function ropesOf(
  config: Gemma3TextConfig,
  file: string,
): { readonly local: RopeParameters; readonly global: RopeParameters } {
  const { rope_parameters: kinds, rope_scaling, rope_theta = 1_000_000, rope_local_base_freq = 10_000 } = config;
  return {
    local: ropeParametersOf({ rope_parameters: kinds?.sliding_attention, rope_theta: rope_local_base_freq }, file),
    global: ropeParametersOf({ rope_parameters: kinds?.full_attention, rope_scaling, rope_theta }, file),
  };
}

/** What all layers share. */
interface Shared {
  readonly local: RopeAngles;
  readonly global: RopeAngles;
  readonly maskOf: DecoderInputs["maskOf"];
  readonly cache: KvCache | undefined;
}

/** Grouped-query attention with normed queries and keys; with a window, or over all positions at slower angles. */
export class Gemma3TextAttention extends Module {
  readonly q_proj: Linear;
  readonly k_proj: Linear;
  readonly v_proj: Linear;
  readonly o_proj: Linear;
  readonly q_norm: GemmaRmsNorm;
  readonly k_norm: GemmaRmsNorm;
  readonly #layer: number;
  readonly #headDim: number;
  readonly #window: number | null;
  readonly #scale: number;

  constructor(config: Gemma3TextConfig, layer: number, window: number | null) {
    super();
    const { hidden_size, head_dim, num_attention_heads, num_key_value_heads, attention_bias } = config;
    this.#layer = layer;
    this.#headDim = head_dim;
    this.#window = window;
    this.#scale = config.query_pre_attn_scalar ** -0.5;
    this.q_proj = linear(hidden_size, num_attention_heads * head_dim, attention_bias);
    this.k_proj = linear(hidden_size, num_key_value_heads * head_dim, attention_bias);
    this.v_proj = linear(hidden_size, num_key_value_heads * head_dim, attention_bias);
    this.o_proj = linear(num_attention_heads * head_dim, hidden_size, attention_bias);
    this.q_norm = gemmaRmsNorm(head_dim, config.rms_norm_eps);
    this.k_norm = gemmaRmsNorm(head_dim, config.rms_norm_eps);
  }

  /** x [B, T, hidden] → [B, T, hidden] */
  forward(x: Tensor, { local, global, maskOf, cache }: Shared): Tensor {
    const [B, T] = x.shape as [number, number];
    const D = this.#headDim;
    const heads = (y: Tensor): Tensor => reshape(y, [B, T, y.shape[2]! / D, D]);
    const turned = (y: Tensor): Tensor => applyRotary(transpose(y, 1, 2), this.#window === null ? global : local);
    const q = turned(this.q_norm.forward(heads(this.q_proj.forward(x)))); // [B, H, T, D]
    let key = turned(this.k_norm.forward(heads(this.k_proj.forward(x)))); // [B, K, T, D]
    let value = transpose(heads(this.v_proj.forward(x)), 1, 2);
    if (cache) ({ key, value } = cache.update(this.#layer, key, value, this.#window)); // [B, K, S, D]
    const y = transpose(attention(q, key, value, maskOf(this.#window), { scale: this.#scale }), 1, 2); // [B, T, H, D]
    return this.o_proj.forward(reshape(y, [B, T, y.shape[2]! * D]));
  }
}

/** Norms on both sides: x + norm(attention(norm x)), then + norm(mlp(norm x)). */
export class Gemma3TextDecoderLayer extends Module {
  readonly self_attn: Gemma3TextAttention;
  readonly mlp: GemmaMlp;
  readonly input_layernorm: GemmaRmsNorm;
  readonly post_attention_layernorm: GemmaRmsNorm;
  readonly pre_feedforward_layernorm: GemmaRmsNorm;
  readonly post_feedforward_layernorm: GemmaRmsNorm;

  constructor(config: Gemma3TextConfig, layer: number, window: number | null) {
    super();
    const { hidden_size, intermediate_size, hidden_activation, rms_norm_eps } = config;
    this.self_attn = new Gemma3TextAttention(config, layer, window);
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

/** Scaled embedding, five blocks with a window for each that sees everything, final norm. */
export class Gemma3TextModel extends Module {
  readonly embed_tokens: TokenEmbedding;
  readonly layers: readonly Gemma3TextDecoderLayer[];
  readonly norm: GemmaRmsNorm;
  readonly #ropes: { readonly local: RopeParameters; readonly global: RopeParameters };
  readonly #headDim: number;
  readonly #maxPositions: number;

  constructor(config: Gemma3TextConfig, file: string) {
    super();
    this.#ropes = ropesOf(config, file);
    this.#headDim = config.head_dim;
    this.#maxPositions = config.max_position_embeddings;
    checkRotaryPairs(file, "head_dim", this.#ropes.global, this.#headDim);
    const windows = windowsOf(config, file, (layer) => (layer + 1) % config.sliding_window_pattern !== 0);
    this.embed_tokens = embedding(config.vocab_size, config.hidden_size, paddingIdxOf(config, file));
    this.layers = windows.map((window, i) => new Gemma3TextDecoderLayer(config, i, window));
    this.norm = gemmaRmsNorm(config.hidden_size, config.rms_norm_eps);
  }

  /** → the input of every block and the normed output, each [B, T, hidden]; only the last one unless `keepAll`. */
  forward({ ids, positions, maskOf, cache }: DecoderInputs, keepAll: boolean): Tensor[] {
    const length = 1 + positions.reduce((longest, p) => Math.max(longest, p), 0);
    const angles = (rope: RopeParameters): RopeAngles =>
      ropeAngles(ropeFrequencies(rope, this.#headDim, this.#maxPositions, length), positions, ids.rows);
    const shared = { local: angles(this.#ropes.local), global: angles(this.#ropes.global), maskOf, cache };
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

/** Gemma Team 2025, https://arxiv.org/abs/2503.19786, its language model alone; transformers' Gemma3ForCausalLM. */
export class Gemma3ForCausalLM extends CausalLM {
  readonly model: Gemma3TextModel;
  readonly lm_head: TokenHead;
  readonly #softcap: number | null;

  constructor(config: PretrainedConfig, file = "config.json") {
    super(config);
    const parsed = gemma3TextConfig(config, file);
    this.#softcap = parsed.final_logit_softcapping;
    this.model = new Gemma3TextModel(parsed, file);
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
