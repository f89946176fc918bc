import { ACTIVATIONS, Embedding, LayerNorm, Linear, Module, TiedHead, embedding, layerNorm, linear } from "@neolog/nn";
import { IndexError, type Tensor, add, reshape, transpose } from "@neolog/tensor";
import * as v from "valibot";
import { CausalLM, type DecoderInputs } from "./causalLm.ts";
import {
  COMMON_KEYS,
  type PretrainedConfig,
  activation,
  checkDivides,
  paddingIdxOf,
  parseConfig,
  size,
} from "./config.ts";
import { type HostMatrix, maskedPositions } from "./inputs.ts";
import { type DecoderCache, cachedAttention } from "./cachedAttention.ts";
import type { TokenEmbedding, TokenHead } from "./tokenModules.ts";

const schema = v.looseObject({
  ...COMMON_KEYS,
  hidden_size: size,
  ffn_dim: size,
  num_hidden_layers: size,
  num_attention_heads: size,
  max_position_embeddings: size,
  word_embed_proj_dim: v.nullish(size),
  pad_token_id: v.optional(COMMON_KEYS.pad_token_id, 1),
  activation_function: v.optional(activation, "relu"),
  do_layer_norm_before: v.optional(v.boolean(), true),
  _remove_final_layer_norm: v.optional(v.boolean(), false),
  enable_bias: v.optional(v.boolean(), true),
  layer_norm_elementwise_affine: v.optional(v.boolean(), true),
});
export type OptConfig = v.InferOutput<typeof schema>;

const normOf = ({ hidden_size, layer_norm_elementwise_affine }: OptConfig): LayerNorm =>
  layerNorm(hidden_size, 1e-5, layer_norm_elementwise_affine);

/** Causal multi-head attention. */
export class OptAttention extends Module {
  readonly k_proj: Linear;
  readonly v_proj: Linear;
  readonly q_proj: Linear;
  readonly out_proj: Linear;
  readonly #layer: number;
  readonly #heads: number;

  constructor({ hidden_size, num_attention_heads, enable_bias }: OptConfig, layer: number) {
    super();
    this.#layer = layer;
    this.#heads = num_attention_heads;
    this.k_proj = linear(hidden_size, hidden_size, enable_bias);
    this.v_proj = linear(hidden_size, hidden_size, enable_bias);
    this.q_proj = linear(hidden_size, hidden_size, enable_bias);
    this.out_proj = linear(hidden_size, hidden_size, enable_bias);
  }

  /** x [B, T, hidden] → [B, T, hidden] */
  forward(x: Tensor, mask: Tensor, cache: DecoderCache | undefined): Tensor {
    const [B, T, C] = x.shape as [number, number, number];
    const heads = (y: Tensor): Tensor => transpose(reshape(y, [B, T, this.#heads, C / this.#heads]), 1, 2);
    const q = heads(this.q_proj.forward(x)); // [B, H, T, D]
    const [k, v] = [heads(this.k_proj.forward(x)), heads(this.v_proj.forward(x))];
    const y = cachedAttention(q, k, v, { layer: this.#layer, window: null, mask, cache });
    return this.out_proj.forward(reshape(transpose(y, 1, 2), [B, T, C]));
  }
}

/** Attention, then two feed-forward layers, each with a residual; norms before them, or after (OPT-350m). */
export class OptDecoderLayer extends Module {
  readonly self_attn: OptAttention;
  readonly self_attn_layer_norm: LayerNorm;
  readonly fc1: Linear;
  readonly fc2: Linear;
  readonly final_layer_norm: LayerNorm;
  readonly #activation: (x: Tensor) => Tensor;
  readonly #normFirst: boolean;

  constructor(config: OptConfig, layer: number) {
    super();
    const { hidden_size, ffn_dim, enable_bias, activation_function, do_layer_norm_before } = config;
    this.#activation = ACTIVATIONS[activation_function]!;
    this.#normFirst = do_layer_norm_before;
    this.self_attn = new OptAttention(config, layer);
    this.self_attn_layer_norm = normOf(config);
    this.fc1 = linear(hidden_size, ffn_dim, enable_bias);
    this.fc2 = linear(ffn_dim, hidden_size, enable_bias);
    this.final_layer_norm = normOf(config);
  }

  /** x [B, T, hidden] → [B, T, hidden] */
  forward(x: Tensor, mask: Tensor, cache: DecoderCache | undefined): Tensor {
    const attended = this.#residual(x, this.self_attn_layer_norm, (y) => this.self_attn.forward(y, mask, cache));
    return this.#residual(attended, this.final_layer_norm, (y) =>
      this.fc2.forward(this.#activation(this.fc1.forward(y))),
    );
  }

  #residual(x: Tensor, norm: LayerNorm, block: (x: Tensor) => Tensor): Tensor {
    return this.#normFirst ? add(x, block(norm.forward(x))) : norm.forward(add(x, block(x)));
  }
}

/** The table of positions begins with rows for −2 and −1, the position of padding. */
const OFFSET = 2;

/** Token and position embeddings, blocks, final norm; projections where tokens are narrower than the blocks. */
export class OptDecoder extends Module {
  readonly embed_tokens: TokenEmbedding;
  readonly embed_positions: Embedding;
  readonly project_out: Linear | null;
  readonly project_in: Linear | null;
  readonly final_layer_norm: LayerNorm | null;
  readonly layers: readonly OptDecoderLayer[];

  constructor(config: OptConfig, file: string) {
    super();
    const { hidden_size, vocab_size, word_embed_proj_dim, max_position_embeddings } = config;
    const width = word_embed_proj_dim ?? hidden_size;
    this.embed_tokens = embedding(vocab_size, width, paddingIdxOf(config, file));
    this.embed_positions = embedding(max_position_embeddings + OFFSET, hidden_size);
    this.project_out = width === hidden_size ? null : linear(hidden_size, width);
    this.project_in = width === hidden_size ? null : linear(width, hidden_size);
    this.final_layer_norm = config.do_layer_norm_before && !config._remove_final_layer_norm ? normOf(config) : null;
    this.layers = Array.from({ length: config.num_hidden_layers }, (_, i) => new OptDecoderLayer(config, i));
  }

  /**
   * → the input of every block, each [B, T, hidden], and the normed output [B, T, word_embed_proj_dim]; only the last one unless
   * `keepAll`. Throws IndexError for a position outside the table.
   */
  forward({ ids, positions, maskOf, cache, through }: DecoderInputs, keepAll: boolean): Tensor[] {
    const limit = this.embed_positions.num_embeddings - OFFSET;
    const outside = positions.find((p) => p < -OFFSET || p >= limit);
    if (outside !== undefined) {
      const mustHold = `positions must be in [-${OFFSET}, ${limit}), below max_position_embeddings; shorten the input`;
      throw new IndexError("opt", mustHold, outside);
    }
    const tokens = this.embed_tokens.forward(ids.values);
    const places = this.embed_positions.forward(positions.map((p) => p + OFFSET));
    let x = add(this.project_in?.forward(tokens) ?? tokens, places);
    x = reshape(x, [ids.rows, ids.columns, x.shape[1]!]);
    const mask = maskOf(null);
    const states = [];
    for (const layer of this.layers) {
      if (keepAll) states.push(x);
      x = through(x, (y) => layer.forward(y, mask, cache));
    }
    x = this.final_layer_norm?.forward(x) ?? x;
    return [...states, this.project_out?.forward(x) ?? x];
  }
}

/** The decoder under the name that checkpoints have for it. */
export class OptModel extends Module {
  readonly decoder: OptDecoder;

  constructor(config: OptConfig, file: string) {
    super();
    this.decoder = new OptDecoder(config, file);
  }
  forward(inputs: DecoderInputs, keepAll: boolean): Tensor[] {
    return this.decoder.forward(inputs, keepAll);
  }
}

/** Zhang et al. 2022, https://arxiv.org/abs/2205.01068; transformers' OPTForCausalLM. */
export class OptForCausalLM extends CausalLM {
  readonly model: OptModel;
  readonly lm_head: TokenHead;

  constructor(config: PretrainedConfig, file = "config.json") {
    super(config);
    const parsed = parseConfig(schema, config, file);
    const { hidden_size, num_attention_heads, word_embed_proj_dim, vocab_size } = parsed;
    checkDivides(file, "num_attention_heads", num_attention_heads, "hidden_size", hidden_size);
    this.model = new OptModel(parsed, file);
    this.lm_head = this.#tied
      ? new TiedHead(() => this.model.decoder.embed_tokens)
      : linear(word_embed_proj_dim ?? hidden_size, vocab_size);
  }

  get embeddingPath(): string {
    return "model.decoder.embed_tokens";
  }
  get headPath(): string {
    return "lm_head";
  }
  get tiedPaths(): readonly string[] {
    return this.#tied ? ["lm_head"] : [];
  }
  /** transformers ties OPT's head unless the config says otherwise. */
  get #tied(): boolean {
    return this.config.tie_word_embeddings ?? true;
  }

  /** Padding takes no position; without a mask there is none. */
  protected override positionsOf(ids: HostMatrix, past: number, attentionMask: HostMatrix | null): Int32Array {
    return attentionMask ? maskedPositions(ids, attentionMask) : super.positionsOf(ids, past, attentionMask);
  }
  protected hiddenStates(inputs: DecoderInputs, keepAll: boolean): Tensor[] {
    return this.model.forward(inputs, keepAll);
  }
  protected get head(): TokenHead {
    return this.lm_head;
  }
}
