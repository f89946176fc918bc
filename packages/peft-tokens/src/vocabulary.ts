import { VocabularyError, positionsOf } from "@neolog/models";
import { Embedding, Linear } from "@neolog/nn";
import { Scope, assign, cast, slice, takeRows, untracked } from "@neolog/tensor";
import { type AdaptableModel, configValue } from "./adaptable.ts";
import type { Adapters } from "./adapters.ts";
import { AdapterError, ConfigError } from "./errors.ts";
import { type InitPolicy, checkInit } from "./init.ts";
import { checkRowsAlone, growVocabulary, whilePlain } from "./grow.ts";
import { PeftModel } from "./model.ts";
import { withTokens } from "./registry.ts";
import { RowTable, startingRows } from "./startingRows.ts";
import { plainAt } from "./wrap.ts";

/** A model with adapters, or one without. */
type Base = AdaptableModel;
type Adapted<M extends Base> = PeftModel<M> | M;

/**
 * Adds `count` tokens to table and untied head, biases included, and returns their ids. Adapters stay as they are. New rows start by
 * `init`, each table by its own; "mean" by default. Throws AdapterError MERGED or ConfigError; then nothing changed.
 */
export function addTokens<M extends Base>(
  model: Adapted<M>,
  count: number,
  { init = "mean", seed = 0 }: { readonly init?: InitPolicy; readonly seed?: number } = {},
): number[] {
  const root: Base = model instanceof PeftModel ? model.getBaseModel() : model;
  if (!Number.isInteger(count) || count < 1)
    throw new ConfigError("ARGUMENT", `addTokens: count must be a whole number above 0, got ${count}`, { count });
  if (model instanceof PeftModel) checkTables(model.adapters, "addTokens");
  if (init === "original" || (typeof init === "object" && init.kind === "original"))
    throw new ConfigError("ARGUMENT", "addTokens: new tokens have no original rows; use another init", { init });
  const size = vocabSize(root);
  const ids = Array.from({ length: count }, (_, i) => size + i);
  checkInit(init, ids, size + count);
  const unborn = sourcesOf(init).filter((id) => id >= size);
  if (unborn.length > 0) {
    const message = `init: ids must be below the ${size} rows that there are, got ${unborn.join(", ")}`;
    throw new ConfigError("INDEX_RANGE", message, { ids: unborn, rows: size });
  }
  growVocabulary(root, size + count);
  if (init === "mean" || (typeof init === "object" && init.kind === "mean")) return ids;
  const onWarning = model instanceof PeftModel ? model.adapters.onWarning : undefined;
  for (const { weight } of tablesOf(root)) {
    using _temporary = new Scope();
    const table = new RowTable(weight, (of) => takeRows(weight, of));
    const rows = startingRows(table, ids, init, seed, onWarning ?? (({ message }) => console.warn(message)));
    untracked(() => assign(slice(weight, 0, size, size + count), cast(rows, weight.dtype)));
  }
  return ids;
}

/**
 * Leaves only the tokens of `keepIds`, in that order, in table, head, config and adapters: id keepIds[i] is i now. Logits of kept
 * tokens stay as they are. Throws VocabularyError or AdapterError; then nothing changed. The tokenizer has `trimmed` for its part.
 */
export function trimVocabulary<M extends Base>(model: Adapted<M>, keepIds: readonly number[]): void {
  const root: Base = model instanceof PeftModel ? model.getBaseModel() : model;
  const positions = positionsOf(keepIds, vocabSize(root));
  const adapters = model instanceof PeftModel ? model.adapters : null;
  if (adapters) {
    checkTables(adapters, "trimVocabulary");
    for (const [path, layer] of adapters.tokenLayers()) {
      for (const name of layer.adapters) checkKept(layer.indicesOf(name), positions, `trained by ${name} on ${path}`);
    }
  }
  if (!root.keepTokenEmbeddings)
    throw new ConfigError(
      "UNSUPPORTED",
      `trimVocabulary: the model must be able to trim, got a ${root.constructor.name}`,
    );
  const renumber = (ids: readonly number[]): number[] => ids.map((id) => positions.get(id)!);
  const configs = [...(adapters?.entries.values() ?? [])].map(
    (entry) => [entry, withTokens(entry.config, renumber)] as const,
  );
  whilePlain(root, () => root.keepTokenEmbeddings!(keepIds));
  for (const layer of adapters?.tokenLayers().values() ?? []) layer.renumber(positions);
  for (const [entry, config] of configs) entry.config = config;
}

/** The ids whose rows a policy reads. */
function sourcesOf(init: InitPolicy): readonly number[] {
  if (typeof init === "string") return [];
  return init.kind === "copy" ? init.from : init.kind === "description" ? init.tokens.flat() : [];
}

function checkKept(ids: Int32Array, positions: ReadonlyMap<number, number>, what: string): void {
  const lost = [...ids].filter((id) => !positions.has(id));
  if (lost.length > 0)
    throw new VocabularyError(
      `trim: ids ${what} must be kept, left out ${lost.join(", ")}; remove them from the adapter`,
      lost,
    );
}

/** Throws AdapterError MERGED, ConfigError UNSUPPORTED where an adapter has more of a table than rows. */
function checkTables(adapters: Adapters, where: string): void {
  const { merged } = adapters.state;
  checkRowsAlone(adapters, where);
  if (merged.length === 0) return;
  throw new AdapterError("MERGED", `${where}: nothing may be merged, got ${merged.join(", ")}; unmerge first`, {
    merged,
  });
}

function vocabSize(root: Base): number {
  const size = configValue(root, "vocab_size");
  if (typeof size === "number") return size;
  throw new ConfigError("UNSUPPORTED", "vocabulary: the model's config must say vocab_size, found none", {});
}

/** The embedding and an untied head, as the unadapted model has them. */
function tablesOf(root: Base): (Embedding | Linear)[] {
  return [root.embeddingPath, root.headPath].flatMap((path) => {
    const module = typeof path === "string" ? plainAt(root, path) : undefined;
    return module instanceof Embedding || module instanceof Linear ? [module] : [];
  });
}
