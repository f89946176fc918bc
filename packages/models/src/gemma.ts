import {
  ACTIVATIONS,
  GemmaRmsNorm,
  Linear,
  Module,
  type RopeParameters,
  TiedHead,
  embedding,
  gemmaRmsNorm,
  linear,
  ropeAngles,
  ropeFrequencies,
} from "@neolog/nn";
import { type Tensor, add, cast, full, mul, reshape } from "@neolog/tensor";
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
import { LlamaAttention } from "./llama.ts";
import type { BlockInputs } from "./rotaryAttention.ts";
import { type TokenEmbedding, type TokenHead, tableDType } from "./tokenModules.ts";

const schema = v.looseObject({
  ...COMMON_KEYS,
  ...ROPE_KEYS,
  hidden_size: size,
  intermediate_size: size,
  num_hidden_layers: size,
  num_attention_heads: size,
  num_key_value_heads: size,
  head_dim: size,
  hidden_act: v.optional(activation, "gelu_pytorch_tanh"),
  hidden_activation: v.nullish(activation),
  rms_norm_eps: positive,
  max_position_embeddings: size,
  pad_token_id: v.optional(COMMON_KEYS.pad_token_id, 0),
  attention_bias: v.optional(v.boolean(), false),
  use_bidirectional_attention: v.nullish(v.literal(false)),
});
export type GemmaConfig = v.InferOutput<typeof schema>;

/** config.json, checked. Throws ModelConfigError. */
function gemmaConfig(config: PretrainedConfig, file: string): GemmaConfig {
  const parsed = parseConfig(schema, config, file);
  const { num_attention_heads, num_key_value_heads, hidden_activation } = parsed;
  checkDivides(file, "num_key_value_heads", num_key_value_heads, "num_attention_heads", num_attention_heads);
  // The first releases wrote "gelu" and meant its approximation, https://github.com/huggingface/transformers/pull/29402
  const hidden_act = parsed.hidden_act === "gelu" ? "gelu_pytorch_tanh" : parsed.hidden_act;
  if (hidden_activation && ACTIVATIONS[hidden_activation] !== ACTIVATIONS[hidden_act]) {
    const mustHold = `must be what hidden_act means (${hidden_act}), found "${hidden_activation}"`;
    throw new ModelConfigError(file, "hidden_activation", mustHold);
  }
  return { ...parsed, hidden_act };
}

/**
 * ids [n] → [n, hidden]: the looked-up rows times √hidden, rounded to the table's dtype as transformers rounds it (55.5 for
 * 3072 in bfloat16). Rows that an adapter trains are scaled as well, and stored without.
 */
export function scaledLookup(table: TokenEmbedding, ids: Int32Array): Tensor {
  const x = table.forward(ids);
  return mul(x, cast(full([1], Math.sqrt(x.shape[1]!), "float32", x.backend), tableDType(table)));
}

/** Gated feed-forward block. Shazeer 2020, https://arxiv.org/abs/2002.05202 */
export class GemmaMlp extends Module {
  readonly gate_proj: Linear;
  readonly up_proj: Linear;
  readonly down_proj: Linear;
  readonly #activation: (x: Tensor) => Tensor;

  constructor(hiddenSize: number, intermediateSize: number, activationName: string) {
    super();
    this.#activation = ACTIVATIONS[activationName]!;
    this.gate_proj = linear(hiddenSize, intermediateSize);
    this.up_proj = linear(hiddenSize, intermediateSize);
    this.down_proj = linear(intermediateSize, hiddenSize);
  }

  /** x [..., hidden] → [..., hidden] */
  forward(x: Tensor): Tensor {
    return this.down_proj.forward(mul(this.#activation(this.gate_proj.forward(x)), this.up_proj.forward(x)));
  }
}

/** Llama's block with Gemma's norms: x + attention(norm x), then + mlp(norm x). */
export class GemmaDecoderLayer extends Module {
  readonly self_attn: LlamaAttention;
  readonly mlp: GemmaMlp;
  readonly input_layernorm: GemmaRmsNorm;
  readonly post_attention_layernorm: GemmaRmsNorm;

  constructor(config: GemmaConfig) {
    super();
    const { hidden_size, intermediate_size, hidden_act, rms_norm_eps, attention_bias } = config;
    this.self_attn = new LlamaAttention({ ...config, qkv_bias: attention_bias, o_bias: attention_bias });
    this.mlp = new GemmaMlp(hidden_size, intermediate_size, hidden_act);
    this.input_layernorm = gemmaRmsNorm(hidden_size, rms_norm_eps);
    this.post_attention_layernorm = gemmaRmsNorm(hidden_size, rms_norm_eps);
  }

  /** x [B, T, hidden] → [B, T, hidden] */
  forward(x: Tensor, block: BlockInputs): Tensor {
    const attended = add(x, this.self_attn.forward(this.input_layernorm.forward(x), block));
    return add(attended, this.mlp.forward(this.post_attention_layernorm.forward(attended)));
  }
}

/** Scaled embedding, blocks, final norm. */
export class GemmaModel extends Module {
  readonly embed_tokens: TokenEmbedding;
  readonly layers: readonly GemmaDecoderLayer[];
  readonly norm: GemmaRmsNorm;
  readonly #rope: RopeParameters;
  readonly #headDim: number;
  readonly #maxPositions: number;

  constructor(config: GemmaConfig, file: string) {
    super();
    this.#rope = ropeParametersOf(config, file);
    this.#headDim = config.head_dim;
    this.#maxPositions = config.max_position_embeddings;
    checkRotaryPairs(file, "head_dim", this.#rope, this.#headDim);
    this.embed_tokens = embedding(config.vocab_size, config.hidden_size, paddingIdxOf(config, file));
    this.layers = Array.from({ length: config.num_hidden_layers }, () => new GemmaDecoderLayer(config));
    this.norm = gemmaRmsNorm(config.hidden_size, config.rms_norm_eps);
  }

  /** → the input of every block and the normed output, each [B, T, hidden]; only the last one unless `keepAll`. */
  forward({ ids, positions, maskOf, cache }: DecoderInputs, keepAll: boolean): Tensor[] {
    const length = 1 + positions.reduce((longest, p) => Math.max(longest, p), 0);
    const frequencies = ropeFrequencies(this.#rope, this.#headDim, this.#maxPositions, length);
    const shared = { window: null, mask: maskOf(null), angles: ropeAngles(frequencies, positions, ids.rows), cache };
    let x = scaledLookup(this.embed_tokens, ids.values);
    x = reshape(x, [ids.rows, ids.columns, x.shape[1]!]);
    const states: Tensor[] = [];
    this.layers.forEach((block, layer) => {
      if (keepAll) states.push(x);
      x = block.forward(x, { ...shared, layer });
    });
    return [...states, this.norm.forward(x)];
  }
}

/** Gemma Team 2024, https://arxiv.org/abs/2403.08295; transformers' GemmaForCausalLM. */
export class GemmaForCausalLM extends CausalLM {
  readonly model: GemmaModel;
  readonly lm_head: TokenHead;

  constructor(config: PretrainedConfig, file = "config.json") {
    super(config);
    const parsed = gemmaConfig(config, file);
    this.model = new GemmaModel(parsed, file);
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
    return this.lm_head.forward(x);
  }
}
