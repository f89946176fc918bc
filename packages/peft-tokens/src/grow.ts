import { type Module, replaceModule } from "@neolog/nn";
import type { AdaptableModel } from "./adaptable.ts";
import { ConfigError } from "./errors.ts";
import { layerAt } from "./wrap.ts";

/** Runs `f` while the embedding and the head are plain modules, and puts their adapters around them again. */
export function whilePlain<T>(root: AdaptableModel, f: () => T): T {
  const wrapped: [string, Module][] = [];
  for (const path of [root.embeddingPath, root.headPath]) {
    const layer = typeof path === "string" ? layerAt(root, path) : null;
    if (!layer) continue;
    wrapped.push([path as string, root.moduleAt(path as string)!]);
    replaceModule(root, path as string, () => layer.base);
  }
  try {
    return f();
  } finally {
    for (const [path, wrapper] of wrapped) replaceModule(root, path, () => wrapper);
  }
}

/** Grows the vocabulary of a model whose embedding or head may be wrapped; new rows are the mean of the old ones. */
export function growVocabulary(root: AdaptableModel, size: number): void {
  if (!root.resizeTokenEmbeddings)
    throw new ConfigError(
      "UNSUPPORTED",
      `addTokens: the model must be able to grow its table, got a ${root.constructor.name}`,
    );
  whilePlain(root, () => root.resizeTokenEmbeddings!(size));
}
