import {
  ACTIVATIONS,
  Embedding,
  LayerNorm,
  Linear,
  Module,
  TiedHead,
  blank,
  embedding,
  layerNorm,
  linear,
} from "@neolog/nn";
import { IndexError, type Tensor, add, attention, reshape, transpose } from "@neolog/tensor";
import * as v from "valibot";
import {
  COMMON_KEYS,
  type PretrainedConfig,
  activation,
  checkDivides,
  paddingIdxOf,
  parseConfig,
  positive,
  size,
  tokenId,
} from "./config.ts";
import { type EncoderInputs, MaskedLM } from "./maskedLm.ts";
import { resized } from "./resize.ts";
import { rowsKept } from "./trim.ts";
import type { TokenEmbedding, TokenHead } from "./tokenModules.ts";

const schema = v.looseObject({
  ...COMMON_KEYS,
  hidden_size: size,
  num_hidden_layers: size,
  num_attention_heads: size,
  intermediate_size: size,
  max_position_embeddings: size,
  type_vocab_size: size,
  pad_token_id: v.optional(tokenId, 0),
  hidden_act: v.optional(activation, "gelu"),
  layer_norm_eps: v.optional(positive, 1e-12),
  position_embedding_type: v.optional(v.literal("absolute")),
  is_decoder: v.optional(v.literal(false)),
  add_cross_attention: v.optional(v.literal(false)),
});
export type BertConfig = v.InferOutput<typeof schema>;

/** Tokens, their positions and their segments, summed and normed. */
export class BertEmbeddings extends Module {
  readonly word_embeddings: TokenEmbedding;
  readonly position_embeddings: Embedding;
  readonly token_type_embeddings: Embedding;
  readonly LayerNorm: LayerNorm;

  constructor(config: BertConfig, paddingIdx: number | null) {
    super();
    this.word_embeddings = embedding(config.vocab_size, config.hidden_size, paddingIdx);
    this.position_embeddings = embedding(config.max_position_embeddings, config.hidden_size);
    this.token_type_embeddings = embedding(config.type_vocab_size, config.hidden_size);
    this.LayerNorm = layerNorm(config.hidden_size, config.layer_norm_eps);
  }

  /** → [B, T, hidden] */
  forward({ ids, tokenTypes, positions }: EncoderInputs): Tensor {
    checkBelow("token_type_ids", tokenTypes, "type_vocab_size", this.token_type_embeddings.num_embeddings);
    checkBelow("position_ids", positions, "max_position_embeddings", this.position_embeddings.num_embeddings);
    const words = this.word_embeddings.forward(ids.values);
    const typed = add(words, this.token_type_embeddings.forward(tokenTypes));
    const x = this.LayerNorm.forward(add(typed, this.position_embeddings.forward(positions)));
    return reshape(x, [ids.rows, ids.columns, x.shape[1]!]);
  }
}

/** Multi-head attention in both directions, without its output projection. */
export class BertSelfAttention extends Module {
  readonly query: Linear;
  readonly key: Linear;
  readonly value: Linear;
  readonly #heads: number;

  constructor({ hidden_size, num_attention_heads }: BertConfig) {
    super();
    this.#heads = num_attention_heads;
    this.query = linear(hidden_size, hidden_size, true);
    this.key = linear(hidden_size, hidden_size, true);
    this.value = linear(hidden_size, hidden_size, true);
  }

  /** x [B, T, C] → [B, T, C] */
  forward(x: Tensor, mask: Tensor): Tensor {
    const [B, T, C] = x.shape as [number, number, number];
    const heads = (y: Tensor): Tensor => transpose(reshape(y, [B, T, this.#heads, C / this.#heads]), 1, 2);
    const [q, k, values] = [this.query, this.key, this.value].map((project) => heads(project.forward(x)));
    return reshape(transpose(attention(q!, k!, values!, mask), 1, 2), [B, T, C]);
  }
}

/** Post-norm: norm(x + dense y). */
export class BertOutput extends Module {
  readonly dense: Linear;
  readonly LayerNorm: LayerNorm;

  constructor(inputSize: number, { hidden_size, layer_norm_eps }: BertConfig) {
    super();
    this.dense = linear(inputSize, hidden_size, true);
    this.LayerNorm = layerNorm(hidden_size, layer_norm_eps);
  }

  /** y [B, T, inputSize] and what it is added to, x [B, T, hidden] → [B, T, hidden] */
  forward(y: Tensor, x: Tensor): Tensor {
    return this.LayerNorm.forward(add(this.dense.forward(y), x));
  }
}

export class BertAttention extends Module {
  readonly self: BertSelfAttention;
  readonly output: BertOutput;

  constructor(config: BertConfig) {
    super();
    this.self = new BertSelfAttention(config);
    this.output = new BertOutput(config.hidden_size, config);
  }

  /** x [B, T, hidden] → [B, T, hidden] */
  forward(x: Tensor, mask: Tensor): Tensor {
    return this.output.forward(this.self.forward(x, mask), x);
  }
}

/** The first half of the feed-forward block. */
export class BertIntermediate extends Module {
  readonly dense: Linear;
  readonly #activation: (x: Tensor) => Tensor;

  constructor({ hidden_size, intermediate_size, hidden_act }: BertConfig) {
    super();
    this.#activation = ACTIVATIONS[hidden_act]!;
    this.dense = linear(hidden_size, intermediate_size, true);
  }

  /** x [B, T, hidden] → [B, T, intermediate] */
  forward(x: Tensor): Tensor {
    return this.#activation(this.dense.forward(x));
  }
}

export class BertLayer extends Module {
  readonly attention: BertAttention;
  readonly intermediate: BertIntermediate;
  readonly output: BertOutput;

  constructor(config: BertConfig) {
    super();
    this.attention = new BertAttention(config);
    this.intermediate = new BertIntermediate(config);
    this.output = new BertOutput(config.intermediate_size, config);
  }

  /** x [B, T, hidden] → [B, T, hidden] */
  forward(x: Tensor, mask: Tensor): Tensor {
    const attended = this.attention.forward(x, mask);
    return this.output.forward(this.intermediate.forward(attended), attended);
  }
}

export class BertEncoder extends Module {
  readonly layer: readonly BertLayer[];

  constructor(config: BertConfig) {
    super();
    this.layer = Array.from({ length: config.num_hidden_layers }, () => new BertLayer(config));
  }

  /** → the input of every layer and the output of the last, each [B, T, hidden]; only the last one unless `keepAll`. */
  forward(x: Tensor, { mask, through }: EncoderInputs, keepAll: boolean): Tensor[] {
    const states = [];
    for (const layer of this.layer) {
      if (keepAll) states.push(x);
      x = through(x, (y) => layer.forward(y, mask));
    }
    return [...states, x];
  }
}

export class BertModel extends Module {
  readonly embeddings: BertEmbeddings;
  readonly encoder: BertEncoder;

  constructor(config: BertConfig, paddingIdx: number | null) {
    super();
    this.embeddings = new BertEmbeddings(config, paddingIdx);
    this.encoder = new BertEncoder(config);
  }

  forward(inputs: EncoderInputs, keepAll: boolean): Tensor[] {
    return this.encoder.forward(this.embeddings.forward(inputs), inputs, keepAll);
  }
}

export class BertPredictionHeadTransform extends Module {
  readonly dense: Linear;
  readonly LayerNorm: LayerNorm;
  readonly #activation: (x: Tensor) => Tensor;

  constructor({ hidden_size, hidden_act, layer_norm_eps }: BertConfig) {
    super();
    this.#activation = ACTIVATIONS[hidden_act]!;
    this.dense = linear(hidden_size, hidden_size, true);
    this.LayerNorm = layerNorm(hidden_size, layer_norm_eps);
  }

  /** x [B, T, hidden] → [B, T, hidden] */
  forward(x: Tensor): Tensor {
    return this.LayerNorm.forward(this.#activation(this.dense.forward(x)));
  }
}

export class BertLMPredictionHead extends Module {
  readonly transform: BertPredictionHeadTransform;
  readonly decoder: TokenHead;
  /** The tied decoder's bias. An untied one has its own, and this one is stored and not used, as in transformers. */
  bias: Tensor;

  constructor(config: BertConfig, tiedTo: (() => TokenEmbedding) | null) {
    super();
    const { hidden_size, vocab_size } = config;
    this.transform = new BertPredictionHeadTransform(config);
    this.decoder = tiedTo ? new TiedHead(tiedTo, this) : linear(hidden_size, vocab_size, true);
    this.bias = blank([vocab_size]);
  }

  /** x [B, T, hidden] → logits [B, T, vocab] */
  forward(x: Tensor): Tensor {
    return this.decoder.forward(this.transform.forward(x));
  }
}

export class BertOnlyMLMHead extends Module {
  readonly predictions: BertLMPredictionHead;

  constructor(config: BertConfig, tiedTo: (() => TokenEmbedding) | null) {
    super();
    this.predictions = new BertLMPredictionHead(config, tiedTo);
  }

  /** x [B, T, hidden] → logits [B, T, vocab] */
  forward(x: Tensor): Tensor {
    return this.predictions.forward(x);
  }
}

/** Devlin et al. 2018, https://arxiv.org/abs/1810.04805; transformers' BertForMaskedLM. */
export class BertForMaskedLM extends MaskedLM {
  readonly bert: BertModel;
  readonly cls: BertOnlyMLMHead;

  constructor(config: PretrainedConfig, file = "config.json") {
    super(config);
    const parsed = parseConfig(schema, config, file);
    checkDivides(file, "num_attention_heads", parsed.num_attention_heads, "hidden_size", parsed.hidden_size);
    this.bert = new BertModel(parsed, paddingIdxOf(parsed, file));
    this.cls = new BertOnlyMLMHead(parsed, this.#tied ? () => this.bert.embeddings.word_embeddings : null);
  }

  get embeddingPath(): string {
    return "bert.embeddings.word_embeddings";
  }
  get headPath(): string {
    return "cls.predictions.decoder";
  }
  get tiedPaths(): readonly string[] {
    return this.#tied ? [this.headPath] : [];
  }
  override get tiedKeys(): ReadonlyMap<string, string> {
    const bias = [`${this.headPath}.bias`, "cls.predictions.bias"] as const;
    return new Map([...super.tiedKeys, ...(this.#tied ? [bias] : [])]);
  }
  /** transformers ties BERT's decoder unless the config says otherwise. */
  get #tied(): boolean {
    return this.config.tie_word_embeddings ?? true;
  }

  override resizeTokenEmbeddings(n: number): void {
    super.resizeTokenEmbeddings(n);
    const { predictions } = this.cls;
    predictions.bias = resized(predictions.bias, n);
  }

  override keepTokenEmbeddings(keepIds: readonly number[]): void {
    super.keepTokenEmbeddings(keepIds);
    const { predictions } = this.cls;
    predictions.bias = rowsKept(predictions.bias, keepIds);
  }

  protected hiddenStates(inputs: EncoderInputs, keepAll: boolean): Tensor[] {
    return this.bert.forward(inputs, keepAll);
  }
  protected unembed(x: Tensor): Tensor {
    return this.cls.forward(x);
  }
}

function checkBelow(name: string, values: Int32Array, key: string, limit: number): void {
  const outside = values.find((value) => value < 0 || value >= limit);
  if (outside !== undefined) throw new IndexError("bert", `${name} must be below ${key} (${limit})`, outside);
}
