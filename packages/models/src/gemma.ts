import {
  ACTIVATIONS,
  type GatedActivation,
  GemmaRmsNorm,
  Linear,
  Module,
  type RopeAngles,
  type RopeParameters,
  TiedHead,
  embedding,
  gatedActivation,
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

/** What the config.json of all generations of Gemma have in common. */
export const GEMMA_KEYS = {
  ...COMMON_KEYS,
  hidden_size: size,
  intermediate_size: size,
  num_hidden_layers: size,
  num_attention_heads: size,
  num_key_value_heads: size,
  head_dim: size,
  rms_norm_eps: positive,
  max_position_embeddings: size,
  pad_token_id: v.optional(COMMON_KEYS.pad_token_id, 0),
  attention_bias: v.optional(v.boolean(), false),
  use_bidirectional_attention: v.nullish(v.literal(false)),
};
type GemmaKeys = v.InferOutput<v.ObjectSchema<typeof GEMMA_KEYS, undefined>>;

/** What a generation says beside those keys; the lists have one entry for each layer. */
export interface GemmaChoices {
  /** Layers with the same angles share one object. */
  readonly ropes: readonly RopeParameters[];
  /** How many positions a query sees; null for all. */
  readonly windows: readonly (number | null)[];
  /** Logits are bent into (−cap, cap); as they are for null. */
  readonly logitCap: number | null;
}

/** Throws ModelConfigError where keys do not go together. */
function checkGemma(config: GemmaKeys, { ropes }: GemmaChoices, file: string): void {
  const { num_attention_heads, num_key_value_heads, head_dim } = config;
  checkDivides(file, "num_key_value_heads", num_key_value_heads, "num_attention_heads", num_attention_heads);
  for (const rope of ropes) checkRotaryPairs(file, "head_dim", rope, head_dim);
}

/**
 * ids [n] → [n, hidden]: the looked-up rows times √hidden, rounded to the table's dtype as transformers rounds it (55.5 for
 * 3072 in bfloat16). Rows that an adapter trains are scaled as well, and stored without.
 */
function scaledLookup(table: TokenEmbedding, ids: Int32Array): Tensor {
  const x = table.forward(ids);
  return mul(x, cast(full([1], Math.sqrt(x.shape[1]!), "float32", x.backend), tableDType(table)));
}

/** x [...] → [...], bent into (−cap, cap); x itself for null. Bello et al. 2016, https://arxiv.org/abs/1611.09940 */

/** Gated feed-forward block. Shazeer 2020, https://arxiv.org/abs/2002.05202 */
export class GemmaMlp extends Module {
  readonly gate_proj: Linear;
  readonly up_proj: Linear;
  readonly down_proj: Linear;
  readonly #activation: GatedActivation;

  constructor({ hidden_size, intermediate_size }: GemmaKeys, activationName: string) {
    super();
    this.#activation = gatedActivation(activationName);
    this.gate_proj = linear(hidden_size, intermediate_size);
    this.up_proj = linear(hidden_size, intermediate_size);
    this.down_proj = linear(intermediate_size, hidden_size);
  }

  /** x [..., hidden] → [..., hidden] */
  forward(x: Tensor): Tensor {
    return this.down_proj.forward(this.#activation(this.gate_proj.forward(x), this.up_proj.forward(x)));
  }
}

/** Llama's block with Gemma's norms: x + attention(norm x), then + mlp(norm x). */
export class GemmaDecoderLayer extends Module {
  readonly self_attn: LlamaAttention;
  readonly mlp: GemmaMlp;
  readonly input_layernorm: GemmaRmsNorm;
  readonly post_attention_layernorm: GemmaRmsNorm;

  constructor(config: GemmaKeys, activationName: string) {
    super();
    const { hidden_size, rms_norm_eps, attention_bias } = config;
    this.self_attn = new LlamaAttention({ ...config, qkv_bias: attention_bias, o_bias: attention_bias });
    this.mlp = new GemmaMlp(config, activationName);
    this.input_layernorm = gemmaRmsNorm(hidden_size, rms_norm_eps);
    this.post_attention_layernorm = gemmaRmsNorm(hidden_size, rms_norm_eps);
  }

  /** x [B, T, hidden] → [B, T, hidden] */
  forward(x: Tensor, block: BlockInputs): Tensor {
    const attended = add(x, this.self_attn.forward(this.input_layernorm.forward(x), block));
    return add(attended, this.mlp.forward(this.post_attention_layernorm.forward(attended)));
  }
}

type Block = Module & { forward(x: Tensor, block: BlockInputs): Tensor };

/** Scaled embedding, blocks, final norm. */
export class GemmaModel extends Module {
  readonly embed_tokens: TokenEmbedding;
  readonly layers: readonly Block[];
  readonly norm: GemmaRmsNorm;
  readonly #config: GemmaKeys & GemmaChoices;

  constructor(config: GemmaKeys & GemmaChoices, layer: () => Block, file: string) {
    super();
    this.#config = config;
    this.embed_tokens = embedding(config.vocab_size, config.hidden_size, paddingIdxOf(config, file));
    this.layers = Array.from({ length: config.num_hidden_layers }, layer);
    this.norm = gemmaRmsNorm(config.hidden_size, config.rms_norm_eps);
  }

  /** → the input of every block and the normed output, each [B, T, hidden]; only the last one unless `keepAll`. */
  forward({ ids, positions, maskOf, cache, through }: DecoderInputs, keepAll: boolean): Tensor[] {
    const { ropes, windows, head_dim, max_position_embeddings } = this.#config;
    const length = 1 + positions.reduce((longest, p) => Math.max(longest, p), 0);
    const angles = new Map<RopeParameters, RopeAngles>();
    for (const rope of new Set(ropes)) {
      const frequencies = ropeFrequencies(rope, head_dim, max_position_embeddings, length);
      angles.set(rope, ropeAngles(frequencies, positions, ids.rows));
    }
    let x = scaledLookup(this.embed_tokens, ids.values);
    x = reshape(x, [ids.rows, ids.columns, x.shape[1]!]);
    const states: Tensor[] = [];
    this.layers.forEach((block, layer) => {
      if (keepAll) states.push(x);
      const window = windows[layer]!;
      const inputs = { layer, window, mask: maskOf(window), angles: angles.get(ropes[layer]!)!, cache };
      x = through(x, (y) => block.forward(y, inputs));
    });
    return [...states, this.norm.forward(x)];
  }
}

/** A decoder with Gemma's skeleton; later generations give other blocks to it. */
export abstract class GemmaLike extends CausalLM {
  readonly model: GemmaModel;
  readonly lm_head: TokenHead;
  readonly #cap: number | null;

  constructor(config: PretrainedConfig, parsed: GemmaKeys, choices: GemmaChoices, layer: () => Block, file: string) {
    super(config);
    checkGemma(parsed, choices, file);
    this.#cap = choices.logitCap;
    this.model = new GemmaModel({ ...parsed, ...choices }, layer, file);
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
  protected get head(): TokenHead {
    return this.lm_head;
  }
  protected override get logitCap(): number | null {
    return this.#cap;
  }
}

const schema = v.looseObject({
  ...GEMMA_KEYS,
  ...ROPE_KEYS,
  hidden_act: v.optional(activation, "gelu_pytorch_tanh"),
  hidden_activation: v.nullish(activation),
});

/** The first releases wrote "gelu" and meant its approximation, https://github.com/huggingface/transformers/pull/29402 */
function activationOf({ hidden_act, hidden_activation }: v.InferOutput<typeof schema>, file: string): string {
  const meant = hidden_act === "gelu" ? "gelu_pytorch_tanh" : hidden_act;
  if (hidden_activation && ACTIVATIONS[hidden_activation] !== ACTIVATIONS[meant]) {
    const mustHold = `must be what hidden_act means (${meant}), found "${hidden_activation}"`;
    throw new ModelConfigError(file, "hidden_activation", mustHold);
  }
  return meant;
}

/** Gemma Team 2024, https://arxiv.org/abs/2403.08295; transformers' GemmaForCausalLM. */
export class GemmaForCausalLM extends GemmaLike {
  constructor(config: PretrainedConfig, file = "config.json") {
    const parsed = parseConfig(schema, config, file);
    const activationName = activationOf(parsed, file);
    const rope = ropeParametersOf(parsed, file);
    const layers = Array.from({ length: parsed.num_hidden_layers });
    const choices = { ropes: layers.map(() => rope), windows: layers.map(() => null), logitCap: null };
    super(config, parsed, choices, () => new GemmaDecoderLayer(parsed, activationName), file);
  }
}
