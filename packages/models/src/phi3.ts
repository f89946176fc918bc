import { type GatedActivation, gatedActivation, Linear, Module, linear } from "@neolog/nn";
import { type Tensor, split } from "@neolog/tensor";
import * as v from "valibot";
import { ModelConfigError, PARTIAL_ROPE_KEYS, type PretrainedConfig, parseConfig, ropeParametersOf } from "./config.ts";
import { CausalDecoding, type Decoding, type Prompt } from "./decoding.ts";
import { LLAMA_KEYS, type LlamaConfig, LlamaDecoderLayer, LlamaLike, llamaConfig } from "./llama.ts";
import { type BlockInputs, rotaryAttention, splitHeads } from "./rotaryAttention.ts";
import { WINDOW_KEYS, sameWindowsOf } from "./windows.ts";

const schema = v.looseObject({
  ...LLAMA_KEYS,
  ...PARTIAL_ROPE_KEYS,
  ...WINDOW_KEYS,
  pad_token_id: v.optional(LLAMA_KEYS.pad_token_id, 32_000),
});

/** Grouped-query attention with one matrix for q, k and v. */
export class Phi3Attention extends Module {
  readonly qkv_proj: Linear;
  readonly o_proj: Linear;
  readonly #widths: readonly number[];
  readonly #headDim: number;

  constructor({ hidden_size, num_attention_heads, num_key_value_heads, head_dim }: LlamaConfig) {
    super();
    const [queries, keys] = [num_attention_heads * head_dim, num_key_value_heads * head_dim];
    this.#headDim = head_dim;
    this.#widths = [queries, keys, keys];
    this.qkv_proj = linear(hidden_size, queries + 2 * keys);
    this.o_proj = linear(queries, hidden_size);
  }

  /** x [B, T, hidden] → [B, T, hidden] */
  forward(x: Tensor, block: BlockInputs): Tensor {
    const parts = split(this.qkv_proj.forward(x), this.#widths);
    const [q, k, values] = parts.map((part) => splitHeads(part, this.#headDim)) as [Tensor, Tensor, Tensor];
    return this.o_proj.forward(rotaryAttention(q, k, values, block));
  }
}

/** SwiGLU feed-forward block with one matrix for gate and up. Shazeer 2020, https://arxiv.org/abs/2002.05202 */
export class Phi3Mlp extends Module {
  readonly gate_up_proj: Linear;
  readonly down_proj: Linear;
  readonly #activation: GatedActivation;

  constructor({ hidden_size, intermediate_size, hidden_act }: LlamaConfig) {
    super();
    this.#activation = gatedActivation(hidden_act);
    this.gate_up_proj = linear(hidden_size, 2 * intermediate_size);
    this.down_proj = linear(intermediate_size, hidden_size);
  }

  /** x [..., hidden] → [..., hidden] */
  forward(x: Tensor): Tensor {
    const { in_features } = this.down_proj;
    const [gate, up] = split(this.gate_up_proj.forward(x), [in_features, in_features]) as [Tensor, Tensor];
    return this.down_proj.forward(this.#activation(gate, up));
  }
}

/** Llama with fused projections. Abdin et al. 2024, https://arxiv.org/abs/2404.14219; transformers' Phi3ForCausalLM. */
export class Phi3ForCausalLM extends LlamaLike {
  /** How long a text may get before longrope takes its other factors. */
  readonly #turns: number | undefined;

  constructor(config: PretrainedConfig, file = "config.json") {
    const given = parseConfig(schema, withLongrope(config), file);
    const rope = ropeParametersOf(given, file);
    if (rope.rope_type !== "default" && rope.rope_type !== "longrope") {
      throw new ModelConfigError(
        file,
        "rope_type",
        `must be "default" or "longrope" for phi3, found "${rope.rope_type}"`,
      );
    }
    const parsed = llamaConfig(given, file, { rope, windows: sameWindowsOf(given, file) });
    super(config, parsed, () => new LlamaDecoderLayer(parsed, new Phi3Attention(parsed), new Phi3Mlp(parsed)));
    this.#turns = rope.rope_type === "longrope" ? rope.original_max_position_embeddings : undefined;
  }

  override decoding(prompt: Prompt): Decoding {
    return new CausalDecoding(this, prompt, this.#turns);
  }
}

/** The config with longrope under its own name: older ones call it "su" or "yarn". */
function withLongrope(config: PretrainedConfig): PretrainedConfig {
  const renamed = (rope: unknown): unknown => {
    const { type, rope_type = type } = (rope ?? {}) as Readonly<Record<string, unknown>>;
    return rope_type === "su" || rope_type === "yarn"
      ? { ...(rope as object), rope_type: "longrope", type: "longrope" }
      : rope;
  };
  const { rope_parameters, rope_scaling } = config;
  return { ...config, rope_parameters: renamed(rope_parameters), rope_scaling: renamed(rope_scaling) };
}
