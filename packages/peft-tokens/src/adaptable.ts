import type { Module } from "@neolog/nn";

/** What an adapter asks of a model beside its modules; every model of the zoo answers it, any module tree may. */
export interface AdaptableModel extends Module {
  /** The keys of config.json; `vocab_size`, `model_type` and `tie_word_embeddings` are read. */
  config?: unknown;
  /** Path of the input embedding. */
  readonly embeddingPath?: string;
  /** Paths of the modules that share the embedding's table. */
  readonly tiedPaths?: readonly string[];
  /** Path of the output head, tied or not; null where there is none. */
  readonly headPath?: string | null;
  /** Asked before a block runs that may run again for the gradient; what it gives then runs the block as before. */
  rerunner?: (() => <T>(run: () => T) => T) | null;
  resizeTokenEmbeddings?(n: number): void;
  keepTokenEmbeddings?(keepIds: readonly number[]): void;
}

/** A key of the model's config, or undefined where it has none. */
export function configValue(model: AdaptableModel, key: string): unknown {
  const { config } = model;
  return typeof config === "object" && config !== null ? (config as Record<string, unknown>)[key] : undefined;
}
