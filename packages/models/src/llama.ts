import {
  type GatedActivation,
  Linear,
  Module,
  RmsNorm,
  type RopeParameters,
  TiedHead,
  embedding,
  gatedActivation,
  linear,
  rmsNorm,
  ropeAngles,
  ropeFrequencies,
} from "@neolog/nn";
import { type Tensor, add, reshape } from "@neolog/tensor";
import * as v from "valibot";
import { CausalLM, type DecoderInputs } from "./causalLm.ts";
import {
  COMMON_KEYS,
  type PARTIAL_ROPE_KEYS,
  type PretrainedConfig,
  ROPE_KEYS,
  activation,
  checkDivides,
  paddingIdxOf,
  checkRotaryPairs,
  parseConfig,
  positive,
  ropeParametersOf,
  size,
} from "./config.ts";
import { type BlockInputs, rotaryAttention, splitHeads } from "./rotaryAttention.ts";
import type { TokenEmbedding, TokenHead } from "./tokenModules.ts";

/** What the config.json of Llama and of the families built like it have in common. */
export const LLAMA_KEYS = {
  ...COMMON_KEYS,
  ...ROPE_KEYS,
  hidden_size: size,
  intermediate_size: size,
  num_hidden_layers: size,
  num_attention_heads: size,
  num_key_value_heads: v.nullish(size),
  head_dim: v.nullish(size),
  hidden_act: activation,
  rms_norm_eps: positive,
  max_position_embeddings: size,
};
/** Their values; phi3 has partial rotary too. */
type LlamaKeys = v.InferOutput<
  v.ObjectSchema<Omit<typeof LLAMA_KEYS, keyof typeof ROPE_KEYS> & typeof PARTIAL_ROPE_KEYS, undefined>
>;

/** The same with every value worked out. */
export interface LlamaConfig extends LlamaKeys {
  readonly num_key_value_heads: number;
  readonly head_dim: number;
  readonly rope: RopeParameters;
  /** Row of the table that padding looks up, or null. */
  readonly padding_idx: number | null;
  /** How many positions a query of each layer sees; null for all. */
  readonly windows: readonly (number | null)[];
  readonly qkv_bias: boolean;
  readonly o_bias: boolean;
  readonly mlp_bias: boolean;
}

/** What a family says beside the keys that it shares with Llama; nothing of it by default. */
export type LlamaChoices = Partial<Pick<LlamaConfig, "rope" | "windows" | "qkv_bias" | "o_bias" | "mlp_bias">>;

/** Works out what the keys leave open and checks that they go together. Throws ModelConfigError. */
export function llamaConfig(config: LlamaKeys, file: string, choices: LlamaChoices = {}): LlamaConfig {
  const { hidden_size, num_attention_heads, num_hidden_layers } = config;
  if (!config.head_dim) checkDivides(file, "num_attention_heads", num_attention_heads, "hidden_size", hidden_size);
  const head_dim = config.head_dim ?? hidden_size / num_attention_heads;
  const num_key_value_heads = config.num_key_value_heads ?? num_attention_heads;
  checkDivides(file, "num_key_value_heads", num_key_value_heads, "num_attention_heads", num_attention_heads);
  const rope = choices.rope ?? ropeParametersOf(config, file);
  checkRotaryPairs(file, "head_dim", rope, head_dim);
  return {
    windows: Array.from({ length: num_hidden_layers }, () => null),
    qkv_bias: false,
    o_bias: false,
    mlp_bias: false,
    ...config,
    ...choices,
    num_key_value_heads,
    head_dim,
    rope,
    padding_idx: paddingIdxOf(config, file),
  };
}

type AttentionConfig = Pick<
  LlamaConfig,
  "hidden_size" | "num_attention_heads" | "num_key_value_heads" | "head_dim" | "qkv_bias" | "o_bias"
>;

/** Grouped-query attention with rotary positions. */
export class LlamaAttention extends Module {
  readonly q_proj: Linear;
  readonly k_proj: Linear;
  readonly v_proj: Linear;
  readonly o_proj: Linear;
  readonly #headDim: number;

  constructor(config: AttentionConfig) {
    super();
    const { hidden_size, num_attention_heads, num_key_value_heads, head_dim, qkv_bias, o_bias } = config;
    this.#headDim = head_dim;
    this.q_proj = linear(hidden_size, num_attention_heads * head_dim, qkv_bias);
    this.k_proj = linear(hidden_size, num_key_value_heads * head_dim, qkv_bias);
    this.v_proj = linear(hidden_size, num_key_value_heads * head_dim, qkv_bias);
    this.o_proj = linear(num_attention_heads * head_dim, hidden_size, o_bias);
  }

  /** x [B, T, hidden] → [B, T, hidden] */
  forward(x: Tensor, block: BlockInputs): Tensor {
    const heads = (projection: Linear): Tensor => splitHeads(projection.forward(x), this.#headDim);
    return this.o_proj.forward(rotaryAttention(heads(this.q_proj), heads(this.k_proj), heads(this.v_proj), block));
  }
}

/** SwiGLU feed-forward block. Shazeer 2020, https://arxiv.org/abs/2002.05202 */
export class LlamaMlp extends Module {
  readonly gate_proj: Linear;
  readonly up_proj: Linear;
  readonly down_proj: Linear;
  readonly #activation: GatedActivation;

  constructor({ hidden_size, intermediate_size, mlp_bias, hidden_act }: LlamaConfig) {
    super();
    this.#activation = gatedActivation(hidden_act);
    this.gate_proj = linear(hidden_size, intermediate_size, mlp_bias);
    this.up_proj = linear(hidden_size, intermediate_size, mlp_bias);
    this.down_proj = linear(intermediate_size, hidden_size, mlp_bias);
  }

  /** x [..., hidden] → [..., hidden] */
  forward(x: Tensor): Tensor {
    return this.down_proj.forward(this.#activation(this.gate_proj.forward(x), this.up_proj.forward(x)));
  }
}

type Attention = Module & { forward(x: Tensor, block: BlockInputs): Tensor };
type FeedForward = Module & { forward(x: Tensor): Tensor };

/** Pre-norm block: x + attention(norm x), then + mlp(norm x). */
export class LlamaDecoderLayer extends Module {
  readonly self_attn: Attention;
  readonly mlp: FeedForward;
  readonly input_layernorm: RmsNorm;
  readonly post_attention_layernorm: RmsNorm;

  constructor(
    config: LlamaConfig,
    attention: Attention = new LlamaAttention(config),
    mlp: FeedForward = new LlamaMlp(config),
  ) {
    super();
    this.self_attn = attention;
    this.mlp = mlp;
    this.input_layernorm = rmsNorm(config.hidden_size, config.rms_norm_eps);
    this.post_attention_layernorm = rmsNorm(config.hidden_size, config.rms_norm_eps);
  }

  /** x [B, T, hidden] → [B, T, hidden] */
  forward(x: Tensor, block: BlockInputs): Tensor {
    const attended = add(x, this.self_attn.forward(this.input_layernorm.forward(x), block));
    return add(attended, this.mlp.forward(this.post_attention_layernorm.forward(attended)));
  }
}

/** Embedding, blocks, final norm. */
export class LlamaModel extends Module {
  readonly embed_tokens: TokenEmbedding;
  readonly layers: readonly LlamaDecoderLayer[];
  readonly norm: RmsNorm;
  readonly #config: LlamaConfig;

  constructor(config: LlamaConfig, layer: () => LlamaDecoderLayer) {
    super();
    this.#config = config;
    this.embed_tokens = embedding(config.vocab_size, config.hidden_size, config.padding_idx);
    this.layers = Array.from({ length: config.num_hidden_layers }, layer);
    this.norm = rmsNorm(config.hidden_size, config.rms_norm_eps);
  }

  /** → the input of every block and the normed output, each [B, T, hidden]; only the last one unless `keepAll`. */
  forward({ ids, positions, maskOf, cache, through }: DecoderInputs, keepAll: boolean): Tensor[] {
    const { rope, head_dim, max_position_embeddings, windows } = this.#config;
    const length = 1 + positions.reduce((longest, p) => Math.max(longest, p), 0);
    const frequencies = ropeFrequencies(rope, head_dim, max_position_embeddings, length);
    const angles = ropeAngles(frequencies, positions, ids.rows);
    let x = this.embed_tokens.forward(ids.values);
    x = reshape(x, [ids.rows, ids.columns, x.shape[1]!]);
    const states: Tensor[] = [];
    this.layers.forEach((block, layer) => {
      if (keepAll) states.push(x);
      const window = windows[layer]!;
      const inputs = { layer, window, mask: maskOf(window), angles, cache };
      x = through(x, (y) => block.forward(y, inputs));
    });
    return [...states, this.norm.forward(x)];
  }
}

/** A decoder with Llama's skeleton; families give other blocks to it. */
export abstract class LlamaLike extends CausalLM {
  readonly model: LlamaModel;
  readonly lm_head: TokenHead;

  constructor(config: PretrainedConfig, parsed: LlamaConfig, layer = () => new LlamaDecoderLayer(parsed)) {
    super(config);
    this.model = new LlamaModel(parsed, layer);
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
  protected get head(): TokenHead {
    return this.lm_head;
  }
}

const schema = v.looseObject({
  ...LLAMA_KEYS,
  attention_bias: v.optional(v.boolean(), false),
  mlp_bias: v.optional(v.boolean(), false),
  pretraining_tp: v.optional(v.literal(1)),
});

/** Touvron et al. 2023, https://arxiv.org/abs/2302.13971; transformers' LlamaForCausalLM. */
export class LlamaForCausalLM extends LlamaLike {
  constructor(config: PretrainedConfig, file = "config.json") {
    const parsed = parseConfig(schema, config, file);
    const { attention_bias, mlp_bias } = parsed;
    super(config, llamaConfig(parsed, file, { qkv_bias: attention_bias, o_bias: attention_bias, mlp_bias }));
  }
}
