import {
  ACTIVATIONS,
  Conv1D,
  Embedding,
  LayerNorm,
  Module,
  TiedHead,
  conv1d,
  embedding,
  layerNorm,
  linear,
} from "@neolog/nn";
import { IndexError, type Tensor, add, reshape, split, transpose } from "@neolog/tensor";
import * as v from "valibot";
import { CausalLM, type DecoderInputs } from "./causalLm.ts";
import { COMMON_KEYS, type PretrainedConfig, activation, checkDivides, parseConfig, positive, size } from "./config.ts";
import { type DecoderCache, cachedAttention } from "./cachedAttention.ts";
import type { TokenEmbedding, TokenHead } from "./tokenModules.ts";

const schema = v.looseObject({
  ...COMMON_KEYS,
  n_embd: size,
  n_layer: size,
  n_head: size,
  n_positions: size,
  n_inner: v.nullish(size),
  activation_function: v.optional(activation, "gelu_new"),
  layer_norm_epsilon: v.optional(positive, 1e-5),
  scale_attn_weights: v.optional(v.boolean(), true),
  scale_attn_by_inverse_layer_idx: v.optional(v.boolean(), false),
  add_cross_attention: v.optional(v.literal(false)),
});
export type Gpt2Config = v.InferOutput<typeof schema>;

/** Causal multi-head attention; q, k and v come from one Conv1D. */
export class Gpt2Attention extends Module {
  readonly c_attn: Conv1D;
  readonly c_proj: Conv1D;
  readonly #layer: number;
  readonly #heads: number;
  readonly #scale: number;

  constructor({ n_embd, n_head, scale_attn_weights, scale_attn_by_inverse_layer_idx }: Gpt2Config, layer: number) {
    super();
    this.#layer = layer;
    this.#heads = n_head;
    this.#scale =
      (scale_attn_weights ? 1 / Math.sqrt(n_embd / n_head) : 1) / (scale_attn_by_inverse_layer_idx ? layer + 1 : 1);
    this.c_attn = conv1d(n_embd, 3 * n_embd);
    this.c_proj = conv1d(n_embd, n_embd);
  }

  /** x [B, T, C] → [B, T, C] */
  forward(x: Tensor, mask: Tensor, cache: DecoderCache | undefined): Tensor {
    const [B, T, C] = x.shape as [number, number, number];
    const heads = (y: Tensor): Tensor => transpose(reshape(y, [B, T, this.#heads, C / this.#heads]), 1, 2);
    const [q, k, values] = split(this.c_attn.forward(x), [C, C, C]).map(heads) as [Tensor, Tensor, Tensor]; // [B, H, T, D]
    const inputs = { layer: this.#layer, window: null, mask, cache };
    const y = cachedAttention(q, k, values, inputs, { scale: this.#scale });
    return this.c_proj.forward(reshape(transpose(y, 1, 2), [B, T, C]));
  }
}

/** Two-layer feed-forward block. */
export class Gpt2Mlp extends Module {
  readonly c_fc: Conv1D;
  readonly c_proj: Conv1D;
  readonly #activation: (x: Tensor) => Tensor;

  constructor({ n_embd, n_inner, activation_function }: Gpt2Config) {
    super();
    const inner = n_inner ?? 4 * n_embd;
    this.#activation = ACTIVATIONS[activation_function]!;
    this.c_fc = conv1d(n_embd, inner);
    this.c_proj = conv1d(inner, n_embd);
  }

  /** x [..., C] → [..., C] */
  forward(x: Tensor): Tensor {
    return this.c_proj.forward(this.#activation(this.c_fc.forward(x)));
  }
}

/** Pre-norm block: x + attention(norm x), then + mlp(norm x). */
export class Gpt2Block extends Module {
  readonly ln_1: LayerNorm;
  readonly attn: Gpt2Attention;
  readonly ln_2: LayerNorm;
  readonly mlp: Gpt2Mlp;

  constructor(config: Gpt2Config, layer: number) {
    super();
    this.ln_1 = layerNorm(config.n_embd, config.layer_norm_epsilon);
    this.attn = new Gpt2Attention(config, layer);
    this.ln_2 = layerNorm(config.n_embd, config.layer_norm_epsilon);
    this.mlp = new Gpt2Mlp(config);
  }

  /** x [B, T, C] → [B, T, C] */
  forward(x: Tensor, mask: Tensor, cache: DecoderCache | undefined): Tensor {
    const attended = add(x, this.attn.forward(this.ln_1.forward(x), mask, cache));
    return add(attended, this.mlp.forward(this.ln_2.forward(attended)));
  }
}

/** Token and position embeddings, blocks, final norm. */
export class Gpt2Model extends Module {
  readonly wte: TokenEmbedding;
  readonly wpe: Embedding;
  readonly h: readonly Gpt2Block[];
  readonly ln_f: LayerNorm;

  constructor(config: Gpt2Config) {
    super();
    this.wte = embedding(config.vocab_size, config.n_embd);
    this.wpe = embedding(config.n_positions, config.n_embd);
    this.h = Array.from({ length: config.n_layer }, (_, i) => new Gpt2Block(config, i));
    this.ln_f = layerNorm(config.n_embd, config.layer_norm_epsilon);
  }

  /** → the input of every block and the normed output, each [B, T, C]; only the last one unless `keepAll`. */
  forward({ ids, positions, maskOf, cache, through }: DecoderInputs, keepAll: boolean): Tensor[] {
    const outside = positions.find((p) => p < 0 || p >= this.wpe.num_embeddings);
    if (outside !== undefined) {
      const limit = `positions must be below n_positions (${this.wpe.num_embeddings}); shorten the input`;
      throw new IndexError("gpt2", limit, outside);
    }
    const tokens = this.wte.forward(ids.values);
    let x = reshape(add(tokens, this.wpe.forward(positions)), [ids.rows, ids.columns, tokens.shape[1]!]);
    const mask = maskOf(null);
    const states = [];
    for (const block of this.h) {
      if (keepAll) states.push(x);
      x = through(x, (y) => block.forward(y, mask, cache));
    }
    return [...states, this.ln_f.forward(x)];
  }
}

/** Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"; transformers' GPT2LMHeadModel. */
export class Gpt2LMHeadModel extends CausalLM {
  readonly transformer: Gpt2Model;
  readonly lm_head: TokenHead;

  constructor(config: PretrainedConfig, file = "config.json") {
    super(config);
    const parsed = parseConfig(schema, config, file);
    checkDivides(file, "n_head", parsed.n_head, "n_embd", parsed.n_embd);
    this.transformer = new Gpt2Model(parsed);
    this.lm_head = this.#tied ? new TiedHead(() => this.transformer.wte) : linear(parsed.n_embd, parsed.vocab_size);
  }

  get embeddingPath(): string {
    return "transformer.wte";
  }
  get headPath(): string {
    return "lm_head";
  }
  get tiedPaths(): readonly string[] {
    return this.#tied ? ["lm_head"] : [];
  }
  /** transformers ties GPT-2's head unless the config says otherwise. */
  get #tied(): boolean {
    return this.config.tie_word_embeddings ?? true;
  }

  protected hiddenStates(inputs: DecoderInputs, keepAll: boolean): Tensor[] {
    return this.transformer.forward(inputs, keepAll);
  }
  protected get head(): TokenHead {
    return this.lm_head;
  }
}
