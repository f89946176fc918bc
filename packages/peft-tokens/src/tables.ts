import { CheckpointError, type StoredTensor, fromTensor, toTensor } from "@neolog/checkpoint";
import { loadedVocabSize } from "@neolog/models";
import { Scope, type Shape, type Tensor, assign, formatShape, sameShape } from "@neolog/tensor";
import { configValue } from "./adaptable.ts";
import { copyOf } from "./copyOf.ts";
import type { Adapters } from "./adapters.ts";
import { checkCopiesAgree, checkFloats } from "./loadChecks.ts";
import { tableKey } from "./keys.ts";
import type { Placement } from "./registry.ts";
import type { AdapterFile } from "./readFolder.ts";
import { tiesOf } from "./ties.ts";
import { weightAt } from "./wrap.ts";

/** Whole embedding tables that an adapter's file may hold beside the rows. */
export class WholeTables implements Disposable {
  /** Key → module whose table it is. */
  readonly places = new Map<string, string>();
  readonly #adapters: Adapters;
  readonly #file: AdapterFile;
  readonly #kept: Tensor[] = [];

  constructor(adapters: Adapters, placements: readonly Placement[], file: AdapterFile) {
    this.#adapters = adapters;
    this.#file = file;
    for (const { path, ids, copies = [], tensors } of placements) {
      if (!ids) continue;
      for (const suffix of tensors.keys()) {
        for (const module of [path, ...copies]) this.places.set(`${module}.${tableKey(suffix)}`, module);
      }
    }
  }

  get #found(): [key: string, stored: StoredTensor, module: string][] {
    return [...this.places].flatMap(([key, module]) => {
      const stored = this.#file.tensors.get(key);
      return stored ? [[key, stored, module]] : [];
    });
  }

  /** Tables must fit a vocabulary of `rows` tokens and be equal where they are tied. Throws CheckpointError. */
  check(rows: number): void {
    const { root, state } = this.#adapters;
    const { name } = this.#file;
    const found = this.#found;
    if (found.length > 0 && state.merged.length > 0) {
      throw new CheckpointError(
        "UNEXPECTED",
        `${name}: holds whole tables, and nothing may be merged while the base is replaced; unmerge first`,
        { unexpected: found.map(([key]) => key) },
      );
    }
    for (const [key, stored, module] of found) {
      const own = weightAt(root, module).shape;
      const expected = [growsWithVocabulary(this.#adapters, module) ? rows : own[0]!, own[1]!];
      checkFloats(name, key, stored);
      if (sameShape(stored.shape, expected)) continue;
      throw new CheckpointError(
        "SHAPE",
        `${name}: ${key} must be ${formatShape(expected)}, found ${formatShape(stored.shape)}; resize: true grows the table`,
        { key, expected, found: stored.shape },
      );
    }
    for (const { embedding, tied } of tiesOf(root)) {
      const copies = found.filter(([, , module]) => [embedding, ...tied].includes(module)).map(([key]) => key);
      if (copies.length > 1) checkCopiesAgree(name, copies, this.#file.tensors);
    }
  }

  /** Writes them into the base. What was there is kept for `undo` until this is disposed. */
  replace(undo: (step: () => void) => void): void {
    const { root, layers } = this.#adapters;
    const found = this.#found;
    const reread = (): void => {
      for (const layer of layers().values()) layer.rereadBase();
    };
    if (found.length > 0) undo(reread);
    for (const [key, stored, module] of found) {
      const table = weightAt(root, module);
      const before = copyOf(table);
      this.#kept.push(before);
      undo(() => assign(table, before));
      using _stored = new Scope();
      assign(table, toTensor(stored, { name: key }));
      this.#adapters.warn("BASE_REPLACED", `loadAdapter: ${key} replaced the base's table`);
    }
    if (found.length > 0) reread();
  }
  [Symbol.dispose](): void {
    for (const t of this.#kept) t.dispose();
  }

  /** Rows that the tables of the file have. */
  get rows(): number {
    return Math.max(0, ...this.#found.map(([, { shape }]) => shape[0] ?? 0));
  }
}

/** Whether resizing the vocabulary resizes the table of a module. */
export function growsWithVocabulary({ root }: Pick<Adapters, "root">, module: string): boolean {
  return module === root.embeddingPath || module === root.headPath;
}

/** A shape whose first dimension is a module's rows, as it will be where the vocabulary has `vocabSize` tokens. */
export const grownShape = (
  adapters: Pick<Adapters, "root">,
  module: string,
  shape: Shape,
  vocabSize: number | undefined,
): Shape => (vocabSize !== undefined && growsWithVocabulary(adapters, module) ? [vocabSize, ...shape.slice(1)] : shape);

/** The rows of the vocabulary, or null for a model that does not say. */
export function vocabSizeOf({ root }: Pick<Adapters, "root">): number | null {
  const size = configValue(root, "vocab_size");
  return typeof size === "number" ? size : null;
}

/** Ids that a resize added and none of `ids` covers. */
export function lostRows(adapters: Adapters, ids: ReadonlySet<number>): number[] {
  const size = vocabSizeOf(adapters);
  const loaded = size === null ? 0 : loadedVocabSize(adapters.root as never);
  return Array.from({ length: (size ?? 0) - loaded }, (_, i) => loaded + i).filter((id) => !ids.has(id));
}

/** The tables under an adapter's rows, without what is merged into them, by their keys in its file. */
export async function storedTables(adapters: Adapters, name: string): Promise<Map<string, StoredTensor>> {
  const tables = new Map<string, StoredTensor>();
  for (const [path, layer] of adapters.tokenLayers()) {
    if (!layer.has(name)) continue;
    const table = layer.unadaptedTable();
    const stored = await fromTensor(table);
    table.dispose();
    for (const suffix of layer.tensorsOf(name).keys()) {
      const tied = tiesOf(adapters.root).find(({ embedding }) => embedding === path)?.tied ?? [];
      for (const module of [path, ...tied]) tables.set(`${module}.${tableKey(suffix)}`, stored);
    }
  }
  return tables;
}
