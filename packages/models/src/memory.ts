import { Conv1D, Embedding, GemmaRmsNorm, LayerNorm, Linear, RmsNorm } from "@neolog/nn";
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

/** Columns of logits that a loss forms at a time. */
const CHUNK = 3072;

/**
 * What a sequence of `tokens` takes beside the weights, from the shapes of the modules alone. A gradient reads the input of every norm
 * and the output of every linear layer but the last of a feed-forward or attention part; where one matrix gives q, k and v, q and k
 * are kept again once they are turned. Beside that, forward works on one block and backward on the widest layer. Golden models need
 * up to 15% less or more.
 */
export function estimateMemory(model: PreTrainedModel, tokens: number): MemoryEstimate {
  const blocks = new Map<string, { computed: number; kept: number }>(); // floats of a token
  let [hidden, widest] = [0, 0];
  let last = { part: "", width: 0 };
  for (const [path, module] of model.namedModules()) {
    if (path === model.embeddingPath && module instanceof Embedding) hidden = module.weight.shape[1]!;
    const name = /^.*?\.\d+(?=\.)/.exec(path)?.[0];
    if (!name) continue;
    const block = blocks.get(name) ?? { computed: 4 * hidden, kept: 0 };
    blocks.set(name, block);
    if (module instanceof LayerNorm || module instanceof RmsNorm || module instanceof GemmaRmsNorm)
      block.kept += hidden;
    if (!(module instanceof Linear || module instanceof Conv1D)) continue;
    const width = module.weight.shape[module instanceof Linear ? 0 : 1]!;
    const part = path.slice(0, path.lastIndexOf("."));
    if (last.part === part) block.kept += last.width;
    last = { part, width: /qkv_proj$|query_key_value$/.test(path) ? (5 / 3) * width : width };
    block.computed += (module.bias ? 3 : 2) * width;
    widest = Math.max(widest, width);
  }
  const each = [...blocks.values()];
  const kept = each.reduce((sum, block) => sum + block.kept, 0);
  const forward = Math.max(0, ...each.map((block) => block.computed - block.kept));
  const backward = 3 * Math.max(widest, Math.min(CHUNK, model.config.vocab_size)) + 2 * hidden;
  return {
    cache: FLOAT * tokens * cachedPerToken(model),
    run: FLOAT * (tokens * Math.max(0, ...each.map(({ computed }) => computed)) + model.config.vocab_size),
    train: FLOAT * tokens * (kept + Math.max(forward, backward)),
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
