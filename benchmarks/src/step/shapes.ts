import type { PretrainedConfig } from "@neolog/models";

/** A model with random weights, its table tied to the head, and the batch that trains it where none is asked for. */
export interface Shape {
  readonly config: PretrainedConfig;
  readonly batch: number;
  readonly length: number;
  /** Token rows that train. */
  readonly tokens: number;
  /** Of the checkpoint: as the published one of this shape has it. */
  readonly dtype: "float32" | "bfloat16";
}

const LLAMA = { model_type: "llama", architectures: ["LlamaForCausalLM"], hidden_act: "silu" };

export const SHAPES = {
  tiny: {
    config: {
      ...LLAMA,
      vocab_size: 4096,
      hidden_size: 128,
      intermediate_size: 352,
      num_hidden_layers: 4,
      num_attention_heads: 4,
      num_key_value_heads: 2,
      max_position_embeddings: 2048,
      rms_norm_eps: 1e-5,
      tie_word_embeddings: true,
    },
    batch: 4,
    length: 64,
    tokens: 4,
    dtype: "float32",
  },
  /** GPT-2 small; without dropout, so that others compute the same. */
  gpt2: {
    config: {
      model_type: "gpt2",
      architectures: ["GPT2LMHeadModel"],
      vocab_size: 50257,
      n_embd: 768,
      n_layer: 12,
      n_head: 12,
      n_positions: 1024,
      embd_pdrop: 0,
      attn_pdrop: 0,
      resid_pdrop: 0,
      tie_word_embeddings: true,
    },
    batch: 1,
    length: 128,
    tokens: 4,
    dtype: "float32",
  },
  "smollm2-135m": {
    config: {
      ...LLAMA,
      vocab_size: 49152,
      hidden_size: 576,
      intermediate_size: 1536,
      num_hidden_layers: 30,
      num_attention_heads: 9,
      num_key_value_heads: 3,
      max_position_embeddings: 8192,
      rope_theta: 100_000,
      rms_norm_eps: 1e-5,
      tie_word_embeddings: true,
    },
    batch: 4,
    length: 512,
    tokens: 4,
    dtype: "bfloat16",
  },
  "qwen2.5-0.5b": {
    config: {
      model_type: "qwen2",
      architectures: ["Qwen2ForCausalLM"],
      hidden_act: "silu",
      vocab_size: 151_936,
      hidden_size: 896,
      intermediate_size: 4864,
      num_hidden_layers: 24,
      num_attention_heads: 14,
      num_key_value_heads: 2,
      max_position_embeddings: 32_768,
      rope_theta: 1_000_000,
      rms_norm_eps: 1e-6,
      use_sliding_window: false,
      tie_word_embeddings: true,
    },
    batch: 4,
    length: 512,
    tokens: 4,
    dtype: "bfloat16",
  },
  /** 2.6 billion parameters, never written to a disk. */
  "gemma-2-2b": {
    config: {
      model_type: "gemma2",
      architectures: ["Gemma2ForCausalLM"],
      hidden_activation: "gelu_pytorch_tanh",
      vocab_size: 256_000,
      hidden_size: 2304,
      intermediate_size: 9216,
      num_hidden_layers: 26,
      num_attention_heads: 8,
      num_key_value_heads: 4,
      head_dim: 256,
      query_pre_attn_scalar: 256,
      attn_logit_softcapping: 50,
      final_logit_softcapping: 30,
      sliding_window: 4096,
      max_position_embeddings: 8192,
      rope_theta: 10_000,
      rms_norm_eps: 1e-6,
      tie_word_embeddings: true,
    },
    batch: 1,
    length: 128,
    tokens: 10,
    dtype: "bfloat16",
  },
} as const satisfies { readonly [name: string]: Shape };

export type ShapeName = keyof typeof SHAPES;
