import { Conv1D, Embedding, Linear } from "@neolog/nn";
import type { PreTrainedModel } from "./preTrainedModel.ts";

/** Bytes that a model needs beside its weights, for one sequence. Estimates, save the cache. */
export interface MemoryEstimate {
  /** Keys and values of a sequence, in float32. */
  readonly cache: number;
  /** What one block computes at a time while a prompt is read. */
  readonly run: number;
  /** What forward and backward keep while token rows train and all else is frozen, without recomputation. */
  readonly train: number;
}

const FLOAT = 4;

/**
 * What a sequence of `tokens` takes beside the weights, from the shapes of the modules alone. Every linear layer's output is kept
 * twice (itself, and what an activation or a rotation makes of it), three times where it has a bias, four rows of the hidden size per
 * block, the logits three times; the backward pass works beside that on the widest of all. Golden models need up to 12% less or more.
 */
export function estimateMemory(model: PreTrainedModel, tokens: number): MemoryEstimate {
  const blocks = new Map<string, number>(); // floats that each keeps of a token
  let [hidden, vocabulary, widest] = [0, model.config.vocab_size, 0];
  for (const [path, module] of model.namedModules()) {
    if (path === model.embeddingPath && module instanceof Embedding) hidden = module.weight.shape[1]!;
    const block = /^.*?\.\d+(?=\.)/.exec(path)?.[0];
    if (!block || !(module instanceof Linear || module instanceof Conv1D)) continue;
    const width = module.weight.shape[module instanceof Linear ? 0 : 1]!;
    const copies = module.bias ? 3 : 2;
    blocks.set(block, (blocks.get(block) ?? 4 * hidden) + copies * width);
    widest = Math.max(widest, width);
  }
  const kept = [...blocks.values()].reduce((sum, floats) => sum + floats, 3 * vocabulary);
  return {
    cache: FLOAT * tokens * cachedPerToken(model),
    run: FLOAT * (tokens * Math.max(0, ...blocks.values()) + vocabulary),
    train: FLOAT * tokens * (kept + 3 * Math.max(widest, vocabulary)),
  };
}

/** Numbers that the cache holds of a token: keys and values of every layer; none where the model does not decode. */
function cachedPerToken(model: PreTrainedModel): number {
  if (!("generate" in model)) return 0;
  const of = (...keys: string[]): number | undefined =>
    keys.map((key) => model.config[key]).find((value): value is number => typeof value === "number");
  const layers = of("num_hidden_layers", "n_layer", "num_decoder_layers", "num_layers") ?? 0;
  const heads = of("num_attention_heads", "n_head", "num_heads") ?? 0;
  const hidden = of("hidden_size", "n_embd", "d_model") ?? 0;
  const head_dim = of("head_dim", "d_kv") ?? hidden / heads;
  return 2 * layers * (of("num_key_value_heads") ?? heads) * head_dim;
}
