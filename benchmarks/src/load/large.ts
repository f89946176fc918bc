import type { PretrainedConfig } from "@neolog/models";

/** The sizes of Llama 3.2 1B. */
export const LARGE = {
  model_type: "llama",
  architectures: ["LlamaForCausalLM"],
  dtype: "bfloat16",
  vocab_size: 128_256,
  hidden_size: 2048,
  intermediate_size: 8192,
  num_hidden_layers: 16,
  num_attention_heads: 32,
  num_key_value_heads: 8,
  head_dim: 64,
  hidden_act: "silu",
  rms_norm_eps: 1e-5,
  max_position_embeddings: 131_072,
  rope_parameters: { rope_type: "default", rope_theta: 500_000 },
  tie_word_embeddings: true,
} as const satisfies PretrainedConfig;

/** What a process says of loading and running a folder. */
export interface Measured {
  /** Version of Node. */
  readonly runtime: string;
  /** Seconds until the model is there. */
  readonly load: number;
  /** Most resident bytes before, while loading, and while generating. */
  readonly before: number;
  readonly loaded: number;
  readonly generated: number;
  /** Seconds for the prompt and its first token, and tokens per second from then on. */
  readonly prompt: number;
  readonly tokensPerSecond: number;
}
