import {
  ACTIVATIONS,
  LayerNorm,
  Linear,
  Module,
  type RopeParameters,
  TiedHead,
  embedding,
  layerNorm,
  linear,
  ropeAngles,
  ropeFrequencies,
} from "@neolog/nn";
import { type Tensor, add, reshape, split } from "@neolog/tensor";
import * as v from "valibot";
import { CausalLM, type DecoderInputs } from "./causalLm.ts";
import {
  COMMON_KEYS,
  ModelConfigError,
  PARTIAL_ROPE_KEYS,
  type PretrainedConfig,
  activation,
  checkDivides,
  checkRotaryPairs,
  fraction,
  parseConfig,
  positive,
  ropeParametersOf,
  size,
} from "./config.ts";
import { type BlockInputs, rotaryAttention, splitHeads } from "./rotaryAttention.ts";
import type { TokenEmbedding, TokenHead } from "./tokenModules.ts";

const schema = v.looseObject({
  ...COMMON_KEYS,
  ...PARTIAL_ROPE_KEYS,
  hidden_size: size,
  intermediate_size: size,
  num_hidden_layers: size,
  num_attention_heads: size,
  hidden_act: v.optional(activation, "gelu"),
  layer_norm_eps: v.optional(positive, 1e-5),
  max_position_embeddings: size,
  attention_bias: v.optional(v.boolean(), true),
  use_parallel_residual: v.optional(v.boolean(), true),
  rotary_pct: v.optional(fraction),
  rotary_emb_base: v.optional(positive),
});
export type GptNeoXConfig = v.InferOutput<typeof schema>;

/** Transformers 4 spells two keys of its own, and repeats them as others do; both must say the same. */
function ropeOf(config: GptNeoXConfig, file: string): RopeParameters {
  const { rotary_pct, rotary_emb_base, rope_theta, partial_rotary_factor } = config;
  checkSame(file, "rope_theta", rope_theta, "rotary_emb_base", rotary_emb_base);
  checkSame(file, "partial_rotary_factor", partial_rotary_factor, "rotary_pct", rotary_pct);
  return ropeParametersOf(
    {
      ...config,
      rope_theta: rotary_emb_base ?? rope_theta,
      partial_rotary_factor: rotary_pct ?? partial_rotary_factor ?? 0.25,
    },
    file,
  );
}

function checkSame(file: string, key: string, found: number | undefined, own: string, value: number | undefined): void {
  if (found === undefined || value === undefined || found === value) return;
  throw new ModelConfigError(file, key, `must equal ${own} (${value}), found ${found}`);
}

/** Causal attention that turns the first part of each head. One Linear gives q, k and v of a head side by side. */
export class GptNeoXAttention extends Module {
  readonly query_key_value: Linear;
  readonly dense: Linear;
  readonly #headDim: number;

  constructor({ hidden_size, num_attention_heads, attention_bias }: GptNeoXConfig) {
    super();
    this.#headDim = hidden_size / num_attention_heads;
    this.query_key_value = linear(hidden_size, 3 * hidden_size, attention_bias);
    this.dense = linear(hidden_size, hidden_size, attention_bias);
  }

  /** x [B, T, hidden] → [B, T, hidden] */
  forward(x: Tensor, block: BlockInputs): Tensor {
    const D = this.#headDim;
    const qkv = splitHeads(this.query_key_value.forward(x), 3 * D); // [B, H, T, 3D]
    const [q, k, values] = split(qkv, [D, D, D]) as [Tensor, Tensor, Tensor];
    return this.dense.forward(rotaryAttention(q, k, values, block));
  }
}

/** Two-layer feed-forward block. */
export class GptNeoXMlp extends Module {
  readonly dense_h_to_4h: Linear;
  readonly dense_4h_to_h: Linear;
  readonly #activation: (x: Tensor) => Tensor;

  constructor({ hidden_size, intermediate_size, hidden_act }: GptNeoXConfig) {
    super();
    this.#activation = ACTIVATIONS[hidden_act]!;
    this.dense_h_to_4h = linear(hidden_size, intermediate_size, true);
    this.dense_4h_to_h = linear(intermediate_size, hidden_size, true);
  }

  /** x [..., hidden] → [..., hidden] */
  forward(x: Tensor): Tensor {
    return this.dense_4h_to_h.forward(this.#activation(this.dense_h_to_4h.forward(x)));
  }
}

/** x + attention(norm x) + mlp(norm x), side by side; one after the other where the config says so. */
export class GptNeoXLayer extends Module {
  readonly input_layernorm: LayerNorm;
  readonly post_attention_layernorm: LayerNorm;
  readonly attention: GptNeoXAttention;
  readonly mlp: GptNeoXMlp;
  readonly #parallel: boolean;

  constructor(config: GptNeoXConfig) {
    super();
    this.#parallel = config.use_parallel_residual;
    this.input_layernorm = layerNorm(config.hidden_size, config.layer_norm_eps);
    this.post_attention_layernorm = layerNorm(config.hidden_size, config.layer_norm_eps);
    this.attention = new GptNeoXAttention(config);
    this.mlp = new GptNeoXMlp(config);
  }

  /** x [B, T, hidden] → [B, T, hidden] */
  forward(x: Tensor, block: BlockInputs): Tensor {
    const attended = add(x, this.attention.forward(this.input_layernorm.forward(x), block));
    const seen = this.#parallel ? x : attended;
    return add(attended, this.mlp.forward(this.post_attention_layernorm.forward(seen)));
  }
}

/** Embedding, blocks, final norm. */
export class GptNeoXModel extends Module {
  readonly embed_in: TokenEmbedding;
  readonly layers: readonly GptNeoXLayer[];
  readonly final_layer_norm: LayerNorm;
  readonly #rope: RopeParameters;
  readonly #headDim: number;
  readonly #maxPositions: number;

  constructor(config: GptNeoXConfig, file: string) {
    super();
    this.#rope = ropeOf(config, file);
    this.#headDim = config.hidden_size / config.num_attention_heads;
    this.#maxPositions = config.max_position_embeddings;
    checkRotaryPairs(file, "partial_rotary_factor", this.#rope, this.#headDim);
    this.embed_in = embedding(config.vocab_size, config.hidden_size);
    this.layers = Array.from({ length: config.num_hidden_layers }, () => new GptNeoXLayer(config));
    this.final_layer_norm = layerNorm(config.hidden_size, config.layer_norm_eps);
  }

  /** → the input of every block and the normed output, each [B, T, hidden]; only the last one unless `keepAll`. */
  forward({ ids, positions, maskOf, cache, through }: DecoderInputs, keepAll: boolean): Tensor[] {
    const length = 1 + positions.reduce((longest, p) => Math.max(longest, p), 0);
    const frequencies = ropeFrequencies(this.#rope, this.#headDim, this.#maxPositions, length);
    const shared = { window: null, mask: maskOf(null), angles: ropeAngles(frequencies, positions, ids.rows), cache };
    let x = this.embed_in.forward(ids.values);
    x = reshape(x, [ids.rows, ids.columns, x.shape[1]!]);
    const states: Tensor[] = [];
    this.layers.forEach((block, layer) => {
      if (keepAll) states.push(x);
      x = through(x, (y) => block.forward(y, { ...shared, layer }));
    });
    return [...states, this.final_layer_norm.forward(x)];
  }
}

/** Black et al. 2022, https://arxiv.org/abs/2204.06745; transformers' GPTNeoXForCausalLM. Pythia's architecture. */
export class GptNeoXForCausalLM extends CausalLM {
  readonly gpt_neox: GptNeoXModel;
  readonly lm_head: TokenHead;

  constructor(config: PretrainedConfig, file = "config.json") {
    super(config);
    const parsed = parseConfig(schema, config, file);
    checkDivides(file, "num_attention_heads", parsed.num_attention_heads, "hidden_size", parsed.hidden_size);
    this.gpt_neox = new GptNeoXModel(parsed, file);
    this.lm_head = parsed.tie_word_embeddings
      ? new TiedHead(() => this.gpt_neox.embed_in)
      : linear(parsed.hidden_size, parsed.vocab_size);
  }

  get embeddingPath(): string {
    return "gpt_neox.embed_in";
  }
  get headPath(): string {
    return "lm_head";
  }
  get tiedPaths(): readonly string[] {
    return this.config.tie_word_embeddings ? ["lm_head"] : [];
  }

  /** transformers 5 calls the head as everybody does, and so do adapters; its files keep the old name. */
  override checkpointName(key: string): string {
    return key.replace(/^lm_head\./, "embed_out.");
  }

  protected hiddenStates(inputs: DecoderInputs, keepAll: boolean): Tensor[] {
    return this.gpt_neox.forward(inputs, keepAll);
  }
  protected get head(): TokenHead {
    return this.lm_head;
  }
}
