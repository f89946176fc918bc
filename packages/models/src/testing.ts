import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { openFolder, openSafetensors, readJsonObject, toTypedArray } from "@neolog/checkpoint";
import { CausalLM } from "./causalLm.ts";
import type { PretrainedConfig } from "./config.ts";
import { ARCHITECTURES } from "./registry.ts";

const root = fileURLToPath(new URL("../../..", import.meta.url));

/** The first folder that holds reference data: all of it beside the checkout, or the part that is committed. */
export function referenceFolders(kind: "models" | "ops"): { readonly path: string; readonly complete: boolean } {
  const beside = `${root}../shared/golden/${kind}`;
  if (existsSync(beside)) return { path: beside, complete: true };
  console.log(`reference data: ../shared/golden/${kind} is absent, testing on fixtures/${kind} alone`);
  return { path: `${root}fixtures/${kind}`, complete: false };
}

/** A path under ../shared/real, or null with a printed reason. */
export function realData(name: string): string | null {
  const path = `${root}../shared/real/${name}`;
  if (existsSync(path)) return path;
  console.log(`skipped: ../shared/real/${name} is absent`);
  return null;
}

/** Every tensor of a safetensors file as a host array. */
export async function readTensors(
  folder: string,
  file: string,
): Promise<Map<string, { shape: readonly number[]; data: ArrayLike<number> }>> {
  const source = await openSafetensors(await (await openFolder(folder)).open(file));
  const tensors = new Map<string, { shape: readonly number[]; data: ArrayLike<number> }>();
  for (const name of source.tensors.keys()) {
    const stored = await source.read(name);
    tensors.set(name, { shape: stored.shape, data: toTypedArray(stored, name) });
  }
  await source.close();
  return tensors;
}

export async function readObject<T>(folder: string, file: string): Promise<T> {
  return (await readJsonObject(await openFolder(folder), file)) as T;
}

/** The largest excess of |actual − expected| over atol + rtol·|expected|, with where it is; ≤ 0 when all are within. */
export function worstExcess(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  { atol, rtol = 0 }: { atol: number; rtol?: number },
  counted: (i: number) => boolean = () => true,
): number {
  if (actual.length !== expected.length) return Infinity;
  let worst = -Infinity;
  for (let i = 0; i < expected.length; i++) {
    if (!counted(i)) continue;
    const excess = Math.abs(actual[i]! - expected[i]!) - atol - rtol * Math.abs(expected[i]!);
    worst = Number.isNaN(excess) ? Infinity : Math.max(worst, excess);
  }
  return worst;
}

/** Two layers, a tied decoder, 16 positions, padding 0 and a vocabulary of 23. */
export const TINY_BERT = {
  model_type: "bert",
  vocab_size: 23,
  hidden_size: 12,
  intermediate_size: 20,
  num_hidden_layers: 2,
  num_attention_heads: 3,
  max_position_embeddings: 16,
  type_vocab_size: 2,
};

/** Two layers on either side, a tied head, 8 buckets of positions and a vocabulary of 23. */
export const TINY_T5 = {
  model_type: "t5",
  vocab_size: 23,
  d_model: 12,
  d_kv: 4,
  d_ff: 20,
  num_layers: 2,
  num_heads: 3,
  relative_attention_num_buckets: 8,
  relative_attention_max_distance: 16,
  decoder_start_token_id: 0,
};

/** Two layers with grouped queries, an untied head and a vocabulary of 23. */
export const TINY_LLAMA = {
  model_type: "llama",
  vocab_size: 23,
  hidden_size: 12,
  intermediate_size: 20,
  num_hidden_layers: 2,
  num_attention_heads: 6,
  num_key_value_heads: 3,
  head_dim: 4,
  hidden_act: "silu",
  rms_norm_eps: 1e-5,
  max_position_embeddings: 64,
  rope_theta: 10_000,
  tie_word_embeddings: false,
};

/** Two layers, two thirds of each head turning, an untied head and a vocabulary of 23. */
export const TINY_GPT_NEOX = {
  model_type: "gpt_neox",
  vocab_size: 23,
  hidden_size: 12,
  intermediate_size: 20,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  max_position_embeddings: 64,
  rotary_pct: 0.7,
  tie_word_embeddings: false,
};

/** Two layers, a tied head, 16 positions and a vocabulary of 23. */
export const TINY_GPT2 = {
  model_type: "gpt2",
  vocab_size: 23,
  n_embd: 12,
  n_layer: 2,
  n_head: 3,
  n_positions: 16,
};

/** Two layers, a tied head, 16 positions and a vocabulary of 23. */
export const TINY_OPT = {
  model_type: "opt",
  vocab_size: 23,
  hidden_size: 12,
  ffn_dim: 20,
  num_hidden_layers: 2,
  num_attention_heads: 3,
  max_position_embeddings: 16,
};

/** Two layers, one shared key/value head, a scaled embedding, a tied head and a vocabulary of 23. */
export const TINY_GEMMA = {
  model_type: "gemma",
  vocab_size: 23,
  hidden_size: 12,
  intermediate_size: 20,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 8,
  rms_norm_eps: 1e-6,
  max_position_embeddings: 64,
};

/** The same with a window of 3 in the first layer, capped scores and capped logits. */
export const TINY_GEMMA2 = {
  ...TINY_GEMMA,
  model_type: "gemma2",
  query_pre_attn_scalar: 6,
  sliding_window: 3,
  attn_logit_softcapping: 4,
  final_logit_softcapping: 5,
};

/** The same with a window of 3 in all layers but the second. */
export const TINY_GEMMA3_TEXT = {
  ...TINY_GEMMA,
  model_type: "gemma3_text",
  num_hidden_layers: 3,
  query_pre_attn_scalar: 6,
  sliding_window: 3,
  sliding_window_pattern: 2,
};

/** A tiny config of every architecture: two layers, three positions in windows, a vocabulary of 23. */
export const TINY: Readonly<Record<string, PretrainedConfig>> = {
  bert: TINY_BERT,
  gemma: TINY_GEMMA,
  gemma2: TINY_GEMMA2,
  gemma3_text: TINY_GEMMA3_TEXT,
  gpt2: TINY_GPT2,
  gpt_neox: TINY_GPT_NEOX,
  llama: TINY_LLAMA,
  mistral: { ...TINY_LLAMA, model_type: "mistral", sliding_window: 3 },
  opt: TINY_OPT,
  phi3: { ...TINY_LLAMA, model_type: "phi3", pad_token_id: null, partial_rotary_factor: 0.5 },
  t5: TINY_T5,
  qwen2: { ...TINY_LLAMA, model_type: "qwen2", use_sliding_window: true, max_window_layers: 1, sliding_window: 3 },
  qwen3: {
    ...TINY_LLAMA,
    model_type: "qwen3",
    use_sliding_window: true,
    sliding_window: 3,
    layer_types: ["sliding_attention", "full_attention"],
  },
};

/** The architectures of causal language models. */
export const DECODERS = Object.entries(ARCHITECTURES)
  .filter(([type, { create }]) => create(TINY[type]!, "config.json") instanceof CausalLM)
  .map(([type]) => type);
