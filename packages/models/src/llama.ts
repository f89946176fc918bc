import {
  ACTIVATIONS,
  Linear,
  Module,
  RmsNorm,
  TiedHead,
  type RopeParameters,
  embedding,
  linear,
  rmsNorm,
  ropeAngles,
  ropeFrequencies,
} from "@neolog/nn";
import { type Tensor, add, attention, mul, reshape, rope, transpose } from "@neolog/tensor";
import * as v from "valibot";
import { CausalLM, type DecoderInputs } from "./causalLm.ts";
import {
  COMMON_KEYS,
  ModelConfigError,
  type PretrainedConfig,
  ROPE_KEYS,
  activation,
  checkDivides,
  paddingIdxOf,
  parseConfig,
  positive,
  ropeParametersOf,
  size,
} from "./config.ts";
import type { KvCache } from "./kvCache.ts";
import type { TokenEmbedding, TokenHead } from "./tokenModules.ts";

const schema = v.looseObject({
  ...COMMON_KEYS,
  ...ROPE_KEYS,
  hidden_size: size,
  intermediate_size: size,
  num_hidden_layers: size,
  num_attention_heads: size,
  num_key_value_heads: v.optional(size),
  head_dim: v.nullish(size),
  hidden_act: activation,
  rms_norm_eps: positive,
  max_position_embeddings: size,
  attention_bias: v.optional(v.boolean(), false),
  mlp_bias: v.optional(v.boolean(), false),
  pretraining_tp: v.optional(v.literal(1)),
});
export type LlamaConfig = v.InferOutput<typeof schema>;

/** config.json, checked. Throws ModelConfigError. */
function llamaConfig(config: PretrainedConfig, file: string): LlamaConfig {
  const parsed = parseConfig(schema, config, file);
  const { hidden_size, num_attention_heads, num_key_value_heads, head_dim } = parsed;
  if (!head_dim) checkDivides(file, "num_attention_heads", num_attention_heads, "hidden_size", hidden_size);
  if (num_key_value_heads) {
    checkDivides(file, "num_key_value_heads", num_key_value_heads, "num_attention_heads", num_attention_heads);
  }
  if (headDimOf(parsed) % 2 !== 0) {
    throw new ModelConfigError(file, "head_dim", `must be even for rotary positions, found ${headDimOf(parsed)}`);
  }
  return parsed;
}

/** Angles and mask that all layers share. */
interface Shared {
  readonly cos: Tensor;
  readonly sin: Tensor;
  readonly mask: Tensor;
  readonly cache: KvCache | undefined;
}

/** Grouped-query attention with rotary positions. Ainslie et al. 2023, https://arxiv.org/abs/2305.13245 */
export class LlamaAttention extends Module {
  readonly q_proj: Linear;
  readonly k_proj: Linear;
  readonly v_proj: Linear;
  readonly o_proj: Linear;
  readonly #layer: number;
  readonly #headDim: number;

  constructor(config: LlamaConfig, layer: number) {
    super();
    const { hidden_size, num_attention_heads, attention_bias } = config;
    const keyValueHeads = config.num_key_value_heads ?? num_attention_heads;
    this.#layer = layer;
    this.#headDim = headDimOf(config);
    this.q_proj = linear(hidden_size, num_attention_heads * this.#headDim, attention_bias);
    this.k_proj = linear(hidden_size, keyValueHeads * this.#headDim, attention_bias);
    this.v_proj = linear(hidden_size, keyValueHeads * this.#headDim, attention_bias);
    this.o_proj = linear(num_attention_heads * this.#headDim, hidden_size, attention_bias);
  }

  /** x [B, T, hidden] → [B, T, hidden] */
  forward(x: Tensor, { cos, sin, mask, cache }: Shared): Tensor {
    const [B, T] = x.shape as [number, number];
    const heads = (y: Tensor): Tensor =>
      transpose(reshape(y, [B, T, -1, this.#headDim].with(2, y.shape[2]! / this.#headDim)), 1, 2);
    const q = rope(heads(this.q_proj.forward(x)), cos, sin); // [B, H, T, D]
    let key = rope(heads(this.k_proj.forward(x)), cos, sin); // [B, K, T, D]
    let value = heads(this.v_proj.forward(x));
    if (cache) ({ key, value } = cache.update(this.#layer, key, value)); // [B, K, S, D]
    const y = transpose(attention(q, key, value, mask), 1, 2); // [B, T, H, D]
    return this.o_proj.forward(reshape(y, [B, T, y.shape[2]! * this.#headDim]));
  }
}

/** SwiGLU feed-forward block. Shazeer 2020, https://arxiv.org/abs/2002.05202 */
export class LlamaMlp extends Module {
  readonly gate_proj: Linear;
  readonly up_proj: Linear;
  readonly down_proj: Linear;
  readonly #activation: (x: Tensor) => Tensor;

  constructor({ hidden_size, intermediate_size, mlp_bias, hidden_act }: LlamaConfig) {
    super();
    this.#activation = ACTIVATIONS[hidden_act]!;
    this.gate_proj = linear(hidden_size, intermediate_size, mlp_bias);
    this.up_proj = linear(hidden_size, intermediate_size, mlp_bias);
    this.down_proj = linear(intermediate_size, hidden_size, mlp_bias);
  }

  /** x [..., hidden] → [..., hidden] */
  forward(x: Tensor): Tensor {
    return this.down_proj.forward(mul(this.#activation(this.gate_proj.forward(x)), this.up_proj.forward(x)));
  }
}

/** Pre-norm block: x + attention(norm x), then + mlp(norm x). */
export class LlamaDecoderLayer extends Module {
  readonly self_attn: LlamaAttention;
  readonly mlp: LlamaMlp;
  readonly input_layernorm: RmsNorm;
  readonly post_attention_layernorm: RmsNorm;

  constructor(config: LlamaConfig, layer: number) {
    super();
    this.self_attn = new LlamaAttention(config, layer);
    this.mlp = new LlamaMlp(config);
    this.input_layernorm = rmsNorm(config.hidden_size, config.rms_norm_eps);
    this.post_attention_layernorm = rmsNorm(config.hidden_size, config.rms_norm_eps);
  }

  /** x [B, T, hidden] → [B, T, hidden] */
  forward(x: Tensor, shared: Shared): Tensor {
    const attended = add(x, this.self_attn.forward(this.input_layernorm.forward(x), shared));
    return add(attended, this.mlp.forward(this.post_attention_layernorm.forward(attended)));
  }
}

/** Embedding, blocks, final norm. */
export class LlamaModel extends Module {
  readonly embed_tokens: TokenEmbedding;
  readonly layers: readonly LlamaDecoderLayer[];
  readonly norm: RmsNorm;
  readonly #rope: RopeParameters;
  readonly #headDim: number;
  readonly #maxPositions: number;

  constructor(config: LlamaConfig, file: string) {
    super();
    this.#rope = ropeParametersOf(config, file);
    this.#headDim = headDimOf(config);
    this.#maxPositions = config.max_position_embeddings;
    this.embed_tokens = embedding(config.vocab_size, config.hidden_size, paddingIdxOf(config, file));
    this.layers = Array.from({ length: config.num_hidden_layers }, (_, i) => new LlamaDecoderLayer(config, i));
    this.norm = rmsNorm(config.hidden_size, config.rms_norm_eps);
  }

  /** → the input of every block and the normed output, each [B, T, hidden]; only the last one unless `keepAll`. */
  forward({ ids, positions, maskOf, cache }: DecoderInputs, keepAll: boolean): Tensor[] {
    const length = 1 + positions.reduce((longest, p) => Math.max(longest, p), 0);
    const frequencies = ropeFrequencies(this.#rope, this.#headDim, this.#maxPositions, length);
    const shared = { ...ropeAngles(frequencies, positions, ids.rows), mask: maskOf(null), cache };
    let x = this.embed_tokens.forward(ids.values);
    x = reshape(x, [ids.rows, ids.columns, x.shape[1]!]);
    const states = [];
    for (const layer of this.layers) {
      if (keepAll) states.push(x);
      x = layer.forward(x, shared);
    }
    return [...states, this.norm.forward(x)];
  }
}

/** Touvron et al. 2023, https://arxiv.org/abs/2302.13971; transformers' LlamaForCausalLM. */
export class LlamaForCausalLM extends CausalLM {
  readonly model: LlamaModel;
  readonly lm_head: TokenHead;

  constructor(config: PretrainedConfig, file = "config.json") {
    super(config);
    const parsed = llamaConfig(config, file);
    this.model = new LlamaModel(parsed, file);
    this.lm_head = parsed.tie_word_embeddings
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
    return this.config.tie_word_embeddings ? ["lm_head"] : [];
  }

  protected hiddenStates(inputs: DecoderInputs, keepAll: boolean): Tensor[] {
    return this.model.forward(inputs, keepAll);
  }
  protected unembed(x: Tensor): Tensor {
    return this.lm_head.forward(x);
  }
}

const headDimOf = ({ head_dim, hidden_size, num_attention_heads }: LlamaConfig): number =>
  head_dim ?? hidden_size / num_attention_heads;
