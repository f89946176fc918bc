import { type Module, replaceModule } from "@neolog/nn";
import type { AdaptableModel } from "./adaptable.ts";
import type { Adapters } from "./adapters.ts";
import { ConfigError } from "./errors.ts";
import { TrainableTokensLayer } from "./layer.ts";
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

/** What adapters have of embedding and head must fit other sizes of them: rows do. Throws ConfigError UNSUPPORTED. */
export function checkRowsAlone({ root }: Adapters, where: string): void {
  for (const path of [root.embeddingPath, root.headPath]) {
    const layer = typeof path === "string" ? layerAt(root, path) : null;
    if (!layer || layer instanceof TrainableTokensLayer) continue;
    throw new ConfigError(
      "UNSUPPORTED",
      `${where}: adapters may have token rows alone of ${path}, got a ${layer.moduleType}; merge or delete ${layer.adapters.join(", ")}`,
      { module: path, adapters: layer.adapters },
    );
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
