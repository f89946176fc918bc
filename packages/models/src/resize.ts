import { Embedding, Linear } from "@neolog/nn";
import { IndexError, type Tensor, cast, cat, expand, mean, persist, Scope, slice, untracked } from "@neolog/tensor";
import type { PreTrainedModel } from "./preTrainedModel.ts";

const loadedSizes = new WeakMap<PreTrainedModel, number>();

/** Rows of the embedding before the first resize. */
export const loadedVocabSize = (model: PreTrainedModel): number => loadedSizes.get(model) ?? model.config.vocab_size;

export const setLoadedVocabSize = (model: PreTrainedModel, rows: number): void => void loadedSizes.set(model, rows);

/** The embedding is an adapter's, whose rows belong to the table as it is. */
export class AdaptedEmbeddingError extends Error {
  override readonly name = "AdaptedEmbeddingError";
  readonly path: string;

  constructor(op: string, path: string) {
    super(`${op}: ${path} must be a plain Embedding, got an adapter's; unload it first`);
    this.path = path;
  }
}

/**
 * Grows or shrinks the embedding and an untied head to n rows and sets config.vocab_size. New rows are the mean of the old ones
 * (biases too), so that no new token is likelier than an average one. Hewitt 2021, "Initializing New Word Embeddings for
 * Pretrained Language Models". Throws AdaptedEmbeddingError where an adapter wraps the embedding.
 */
export function resizeTokenEmbeddings(model: PreTrainedModel, n: number): void {
  if (!Number.isInteger(n) || n < 1) throw new IndexError("resizeTokenEmbeddings", "n must be a positive integer", n);
  const table = model.moduleAt(model.embeddingPath);
  const head = model.headPath === null ? undefined : model.moduleAt(model.headPath);
  if (!(table instanceof Embedding)) throw new AdaptedEmbeddingError("resizeTokenEmbeddings", model.embeddingPath);
  loadedSizes.set(model, loadedVocabSize(model));
  table.weight = resized(table.weight, n);
  if (head instanceof Linear) {
    head.weight = resized(head.weight, n);
    if (head.bias) head.bias = resized(head.bias, n);
  }
  model.config = { ...model.config, vocab_size: n };
}

/** The first n rows of t, or t and the mean of its rows n − rows times; t is disposed where it changes. */
export function resized(t: Tensor, n: number): Tensor {
  const [rows, ...row] = t.shape as [number, ...number[]];
  if (n === rows) return t;
  return untracked(() => {
    using _temporary = new Scope();
    const result =
      n < rows ? cat([slice(t, 0, 0, n)]) : cat([t, cast(expand(mean(t, 0, true), [n - rows, ...row]), t.dtype)]);
    result.requiresGrad = t.requiresGrad;
    persist(result);
    t.dispose();
    return result;
  });
}
