import type { PretrainedConfig } from "@neolog/models";

/** A model with random weights and the batch that trains it. */
export interface Shape {
  readonly config: PretrainedConfig;
  readonly batch: number;
  readonly length: number;
  /** Token rows that train. */
  readonly trained: number;
}

const LLAMA = {
  model_type: "llama",
  hidden_act: "silu",
  rms_norm_eps: 1e-5,
  tie_word_embeddings: true,
};

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
      max_position_embeddings: 256,
    },
    batch: 4,
    length: 64,
    trained: 4,
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
    },
    batch: 1,
    length: 128,
    trained: 4,
  },
  /** The sizes of Gemma 2 2B in Llama's architecture: 2.6 billion parameters. */
  "2.6b": {
    config: {
      ...LLAMA,
      hidden_act: "gelu_pytorch_tanh",
      vocab_size: 256_000,
      hidden_size: 2304,
      intermediate_size: 9216,
      num_hidden_layers: 26,
      num_attention_heads: 8,
      num_key_value_heads: 4,
      head_dim: 256,
      max_position_embeddings: 8192,
    },
    batch: 1,
    length: 128,
    trained: 4,
  },
} as const satisfies { readonly [name: string]: Shape };

export type ShapeName = keyof typeof SHAPES;

/** The same ids in every contender; every `length / trained`th position holds a token that trains. */
export function batchOf({ config, batch, length, trained }: Shape): {
  readonly input_ids: number[][];
  readonly token_indices: number[];
} {
  const idAt = (i: number): number => (i * 7919 + 13) % config.vocab_size;
  const input_ids = Array.from({ length: batch }, (_, row) =>
    Array.from({ length }, (_, column) => idAt(row * length + column)),
  );
  const token_indices = Array.from({ length: trained }, (_, i) => input_ids[0]![Math.floor((i * length) / trained)]!);
  return { input_ids, token_indices };
}
