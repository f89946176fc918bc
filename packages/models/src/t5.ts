import {
  ACTIVATIONS,
  Embedding,
  Linear,
  Module,
  RmsNorm,
  TiedEmbedding,
  TiedHead,
  embedding,
  linear,
  rmsNorm,
} from "@neolog/nn";
import { type Tensor, add, attention, mul, permute, reshape, transpose } from "@neolog/tensor";
import * as v from "valibot";
import {
  COMMON_KEYS,
  ModelConfigError,
  type PretrainedConfig,
  parseConfig,
  positive,
  size,
  tokenId,
} from "./config.ts";
import type { EncoderDecoderCache, KeyValue } from "./encoderDecoderCache.ts";
import type { HostMatrix } from "./inputs.ts";
import type { Through } from "./preTrainedModel.ts";
import { type Seq2SeqDecoderInputs, Seq2SeqLM } from "./seq2SeqLm.ts";
import type { TokenEmbedding, TokenHead, TokenLookup } from "./tokenModules.ts";

const schema = v.looseObject({
  ...COMMON_KEYS,
  d_model: size,
  d_kv: size,
  d_ff: size,
  num_layers: size,
  num_decoder_layers: v.nullish(size),
  num_heads: size,
  relative_attention_num_buckets: v.optional(v.pipe(size, v.minValue(4)), 32),
  relative_attention_max_distance: v.optional(size, 128),
  layer_norm_epsilon: v.optional(positive, 1e-6),
  feed_forward_proj: v.optional(v.string(), "relu"),
  dense_act_fn: v.optional(v.string()),
  is_gated_act: v.optional(v.boolean()),
  scale_decoder_outputs: v.optional(v.boolean()),
  pad_token_id: v.optional(tokenId, 0),
  eos_token_id: v.optional(COMMON_KEYS.eos_token_id, 1),
  decoder_start_token_id: tokenId,
  is_encoder_decoder: v.optional(v.literal(true)),
  is_decoder: v.optional(v.literal(false)),
});

/** config.json, checked, with what it says in two places said once. */
export type T5Config = v.InferOutput<typeof schema> & {
  readonly activation: (x: Tensor) => Tensor;
  readonly gated: boolean;
  readonly outputScale: number;
};

/** Throws ModelConfigError. */
function t5Config(config: PretrainedConfig, file: string): T5Config {
  const parsed = parseConfig(schema, config, file);
  const { relative_attention_num_buckets: buckets, relative_attention_max_distance: distance } = parsed;
  if (distance <= buckets / 2) {
    const mustHold = `must be above half of relative_attention_num_buckets (${buckets}), found ${distance}`;
    throw new ModelConfigError(file, "relative_attention_max_distance", mustHold);
  }
  const scaled = parsed.scale_decoder_outputs ?? isTied(parsed);
  return { ...parsed, ...feedForwardOf(parsed, file), outputScale: scaled ? parsed.d_model ** -0.5 : 1 };
}

/**
 * T5 scales the decoder's output for a tied head; T5 1.1 has its own head and no scale. transformers 4 says so by tie_word_embeddings,
 * transformers 5 writes true there in either case and says it by scale_decoder_outputs.
 */
const isTied = (config: {
  readonly tie_word_embeddings?: unknown;
  readonly scale_decoder_outputs?: unknown;
}): boolean => config.tie_word_embeddings !== false && config.scale_decoder_outputs !== false;

/** `relu`, `gated-silu`, …; `gated-gelu` means the tanh form. */
function feedForwardOf(config: v.InferOutput<typeof schema>, file: string) {
  const { feed_forward_proj, dense_act_fn, is_gated_act } = config;
  const [, prefix, name] = /^(gated-)?([^-]+)$/.exec(feed_forward_proj) ?? [];
  const gated = prefix !== undefined;
  const act = gated && name === "gelu" ? "gelu_new" : name;
  if (act === undefined || !Object.hasOwn(ACTIVATIONS, act)) {
    const known = Object.keys(ACTIVATIONS).join(", ");
    const mustHold = `must be one of ${known}, with or without "gated-" before it, found "${feed_forward_proj}"`;
    throw new ModelConfigError(file, "feed_forward_proj", mustHold);
  }
  const goesWith = `to go with feed_forward_proj "${feed_forward_proj}"`;
  if (dense_act_fn !== undefined && dense_act_fn !== act)
    throw new ModelConfigError(file, "dense_act_fn", `must be "${act}" ${goesWith}, found "${dense_act_fn}"`);
  if (is_gated_act !== undefined && is_gated_act !== gated)
    throw new ModelConfigError(file, "is_gated_act", `must be ${gated} ${goesWith}, found ${is_gated_act}`);
  return { activation: ACTIVATIONS[act]!, gated };
}

/**
 * The bucket of a key `distance` positions after the query: one each for near keys, logarithmically wider ones up to `maxDistance`.
 * In float32, as torch computes it: the bounds of the buckets depend on it. Raffel et al. 2019, section 2.1.
 */
export function relativePositionBucket(
  distance: number,
  { bidirectional, buckets, maxDistance }: { bidirectional: boolean; buckets: number; maxDistance: number },
): number {
  const side = bidirectional ? Math.floor(buckets / 2) : buckets;
  const first = bidirectional && distance > 0 ? side : 0;
  const away = bidirectional ? Math.abs(distance) : Math.max(0, -distance);
  const exact = Math.floor(side / 2);
  if (away < exact) return first + away;
  const ratio = Math.fround(Math.log(Math.fround(away / exact)));
  const share = Math.fround(ratio / Math.fround(Math.log(maxDistance / exact)));
  return first + Math.min(side - 1, exact + Math.trunc(Math.fround(share * (side - exact))));
}

/** Multi-head attention whose scores are not scaled. */
export class T5Attention extends Module {
  readonly q: Linear;
  readonly k: Linear;
  readonly v: Linear;
  readonly o: Linear;
  /** [buckets, heads]; the first layer of a stack has it, for all layers. */
  readonly relative_attention_bias: Embedding | null;
  readonly #config: T5Config;

  constructor(config: T5Config, hasRelativeAttentionBias: boolean) {
    super();
    const { d_model, d_kv, num_heads, relative_attention_num_buckets } = config;
    this.#config = config;
    this.q = linear(d_model, num_heads * d_kv);
    this.k = linear(d_model, num_heads * d_kv);
    this.v = linear(d_model, num_heads * d_kv);
    this.o = linear(num_heads * d_kv, d_model);
    this.relative_attention_bias = hasRelativeAttentionBias
      ? embedding(relative_attention_num_buckets, num_heads)
      : null;
  }

  /** What each query adds to its scores, by distance: [1, H, T, past + T] */
  positionBias(T: number, past: number, bidirectional: boolean): Tensor {
    const { relative_attention_num_buckets: buckets, relative_attention_max_distance: maxDistance } = this.#config;
    const S = past + T;
    const bucketOf = Int32Array.from({ length: T + S }, (_, i) =>
      relativePositionBucket(i - (S - 1), { bidirectional, buckets, maxDistance }),
    );
    const ids = Int32Array.from({ length: T * S }, (_, i) => bucketOf[(i % S) - past - Math.floor(i / S) + S - 1]!);
    const bias = this.relative_attention_bias!.forward(ids);
    return permute(reshape(bias, [1, T, S, bias.shape[1]!]), [0, 3, 1, 2]);
  }

  /** x [B, S, d_model] → keys and values, [B, H, S, d_kv] */
  keyValue(x: Tensor): KeyValue {
    return { key: this.#heads(this.k.forward(x)), value: this.#heads(this.v.forward(x)) };
  }

  /** x [B, T, d_model] → [B, T, d_model] */
  forward(x: Tensor, { key, value }: KeyValue, mask: Tensor, bias: Tensor | null): Tensor {
    const [B, T] = x.shape as [number, number];
    const q = this.#heads(this.q.forward(x));
    const y = transpose(attention(q, key, value, mask, { scale: 1, bias }), 1, 2); // [B, T, H, d_kv]
    return this.o.forward(reshape(y, [B, T, this.o.in_features]));
  }

  #heads(y: Tensor): Tensor {
    const { num_heads, d_kv } = this.#config;
    const [B, T] = y.shape as [number, number];
    return transpose(reshape(y, [B, T, num_heads, d_kv]), 1, 2);
  }
}

/** x + attention(norm x) to itself. */
export class T5LayerSelfAttention extends Module {
  readonly SelfAttention: T5Attention;
  readonly layer_norm: RmsNorm;

  constructor(config: T5Config, hasRelativeAttentionBias: boolean) {
    super();
    this.SelfAttention = new T5Attention(config, hasRelativeAttentionBias);
    this.layer_norm = rmsNorm(config.d_model, config.layer_norm_epsilon);
  }

  /** x [B, T, d_model] → [B, T, d_model] */
  forward(x: Tensor, layer: number, { mask, bias, cache }: Shared): Tensor {
    const y = this.layer_norm.forward(x);
    const own = this.SelfAttention.keyValue(y);
    const all = cache?.self.update(layer, own.key, own.value) ?? own;
    return add(x, this.SelfAttention.forward(y, all, mask, bias));
  }
}

/** x + attention(norm x) to the encoder's output. */
export class T5LayerCrossAttention extends Module {
  readonly EncDecAttention: T5Attention;
  readonly layer_norm: RmsNorm;

  constructor(config: T5Config) {
    super();
    this.EncDecAttention = new T5Attention(config, false);
    this.layer_norm = rmsNorm(config.d_model, config.layer_norm_epsilon);
  }

  /** x [B, T, d_model] → [B, T, d_model] */
  forward(x: Tensor, layer: number, { cross, cache }: Shared): Tensor {
    const { encoded, encodedMask } = cross!;
    const project = (): KeyValue => this.EncDecAttention.keyValue(encoded);
    const all = cache ? cache.cross(layer, project) : project();
    return add(x, this.EncDecAttention.forward(this.layer_norm.forward(x), all, encodedMask, null));
  }
}

/** Two-layer feed-forward block. */
export class T5DenseActDense extends Module {
  readonly wi: Linear;
  readonly wo: Linear;
  readonly #activation: (x: Tensor) => Tensor;

  constructor({ d_model, d_ff, activation }: T5Config) {
    super();
    this.#activation = activation;
    this.wi = linear(d_model, d_ff);
    this.wo = linear(d_ff, d_model);
  }

  /** x [..., d_model] → [..., d_model] */
  forward(x: Tensor): Tensor {
    return this.wo.forward(this.#activation(this.wi.forward(x)));
  }
}

/** Gated feed-forward block of T5 1.1. Shazeer 2020, https://arxiv.org/abs/2002.05202 */
export class T5DenseGatedActDense extends Module {
  readonly wi_0: Linear;
  readonly wi_1: Linear;
  readonly wo: Linear;
  readonly #activation: (x: Tensor) => Tensor;

  constructor({ d_model, d_ff, activation }: T5Config) {
    super();
    this.#activation = activation;
    this.wi_0 = linear(d_model, d_ff);
    this.wi_1 = linear(d_model, d_ff);
    this.wo = linear(d_ff, d_model);
  }

  /** x [..., d_model] → [..., d_model] */
  forward(x: Tensor): Tensor {
    return this.wo.forward(mul(this.#activation(this.wi_0.forward(x)), this.wi_1.forward(x)));
  }
}

/** x + dense(norm x). */
export class T5LayerFF extends Module {
  readonly DenseReluDense: T5DenseActDense | T5DenseGatedActDense;
  readonly layer_norm: RmsNorm;

  constructor(config: T5Config) {
    super();
    this.DenseReluDense = config.gated ? new T5DenseGatedActDense(config) : new T5DenseActDense(config);
    this.layer_norm = rmsNorm(config.d_model, config.layer_norm_epsilon);
  }

  /** x [B, T, d_model] → [B, T, d_model] */
  forward(x: Tensor): Tensor {
    return add(x, this.DenseReluDense.forward(this.layer_norm.forward(x)));
  }
}

/** What all blocks of a stack share; `cross` in the decoder alone. */
interface Shared {
  readonly mask: Tensor;
  readonly bias: Tensor;
  readonly cross: { readonly encoded: Tensor; readonly encodedMask: Tensor } | null;
  readonly cache: EncoderDecoderCache | undefined;
}

type StackInputs = Omit<Shared, "bias"> & { readonly through: Through };

/** Self-attention, in the decoder cross-attention, feed-forward: the checkpoint counts them as layers. */
export class T5Block extends Module {
  readonly layer: readonly (T5LayerSelfAttention | T5LayerCrossAttention | T5LayerFF)[];
  readonly #index: number;

  constructor(config: T5Config, index: number, isDecoder: boolean) {
    super();
    this.#index = index;
    const cross = isDecoder ? [new T5LayerCrossAttention(config)] : [];
    this.layer = [new T5LayerSelfAttention(config, index === 0), ...cross, new T5LayerFF(config)];
  }

  /** x [B, T, d_model] → [B, T, d_model] */
  forward(x: Tensor, shared: Shared): Tensor {
    return this.layer.reduce((y, layer) => layer.forward(y, this.#index, shared), x);
  }
}

/** The encoder or the decoder: lookup, blocks, final norm. */
export class T5Stack extends Module {
  readonly embed_tokens: TokenLookup;
  readonly block: readonly T5Block[];
  readonly final_layer_norm: RmsNorm;

  constructor(config: T5Config, isDecoder: boolean, shared: () => TokenEmbedding) {
    super();
    const { num_layers, num_decoder_layers } = config;
    const layers = isDecoder ? (num_decoder_layers ?? num_layers) : num_layers;
    this.embed_tokens = new TiedEmbedding(shared);
    this.block = Array.from({ length: layers }, (_, i) => new T5Block(config, i, isDecoder));
    this.final_layer_norm = rmsNorm(config.d_model, config.layer_norm_epsilon);
  }

  /** → the input of every block and the normed output, each [B, T, d_model]; only the last one unless `keepAll`. */
  forward(ids: HostMatrix, { through, ...given }: StackInputs, keepAll: boolean): Tensor[] {
    const { cross, cache } = given;
    const { SelfAttention } = this.block[0]!.layer[0] as T5LayerSelfAttention;
    const bias = SelfAttention.positionBias(ids.columns, cache?.length ?? 0, cross === null);
    const tokens = this.embed_tokens.forward(ids.values);
    let x = reshape(tokens, [ids.rows, ids.columns, tokens.shape[1]!]);
    const shared = { ...given, bias };
    const states = [];
    for (const block of this.block) {
      if (keepAll) states.push(x);
      x = through(x, (y) => block.forward(y, shared));
    }
    return [...states, this.final_layer_norm.forward(x)];
  }
}

/** Raffel et al. 2019, https://arxiv.org/abs/1910.10683; transformers' T5ForConditionalGeneration. */
export class T5ForConditionalGeneration extends Seq2SeqLM {
  readonly shared: TokenEmbedding;
  readonly encoder: T5Stack;
  readonly decoder: T5Stack;
  readonly lm_head: TokenHead;
  readonly #parsed: T5Config;

  constructor(config: PretrainedConfig, file = "config.json") {
    super(config);
    const parsed = t5Config(config, file);
    this.#parsed = parsed;
    this.shared = embedding(parsed.vocab_size, parsed.d_model);
    this.encoder = new T5Stack(parsed, false, () => this.shared);
    this.decoder = new T5Stack(parsed, true, () => this.shared);
    this.lm_head = isTied(parsed) ? new TiedHead(() => this.shared) : linear(parsed.d_model, parsed.vocab_size);
  }

  get embeddingPath(): string {
    return "shared";
  }
  get headPath(): string {
    return "lm_head";
  }
  /** The stacks share the table in every T5, the head where the config says so. */
  get tiedPaths(): readonly string[] {
    const stacks = ["encoder.embed_tokens", "decoder.embed_tokens"];
    return isTied(this.config) ? [...stacks, this.headPath] : stacks;
  }
  override get config(): PretrainedConfig {
    return super.config;
  }
  /** A head that is untied later keeps its scale. */
  override set config(config: PretrainedConfig) {
    const unties = isTied(this.config) && !isTied(config);
    super.config = unties ? { ...config, scale_decoder_outputs: this.#parsed.outputScale !== 1 } : config;
  }
  get decoderStartTokenId(): number | null {
    return this.#parsed.decoder_start_token_id ?? null;
  }
  get padTokenId(): number | null {
    return this.#parsed.pad_token_id ?? null;
  }

  protected encode(ids: HostMatrix, mask: Tensor, keepAll: boolean): Tensor[] {
    return this.encoder.forward(ids, { mask, cross: null, cache: undefined, through: this.through }, keepAll);
  }
  protected decode({ ids, mask, cache, ...cross }: Seq2SeqDecoderInputs, keepAll: boolean): Tensor[] {
    return this.decoder.forward(ids, { mask, cross, cache, through: this.through }, keepAll);
  }
  protected unembed(x: Tensor): Tensor {
    const { outputScale } = this.#parsed;
    return this.lm_head.forward(outputScale === 1 ? x : mul(x, outputScale));
  }
}
