import { Embedding, Linear, Module, type TiedHead } from "@neolog/nn";
import {
  type DType,
  Scope,
  type Tensor,
  assign,
  cast,
  isStorageDType,
  linear,
  overrideColumns,
  overrideRows,
  persist,
  randn,
  slice,
  takeRows,
  untracked,
  zeros,
} from "@neolog/tensor";

/** What all layers of a model share: which adapters count. */
export interface AdapterState {
  enabled: boolean;
  /** In the order they were set. */
  active: readonly string[];
  /** In the order they were merged. */
  merged: readonly string[];
  /** Told once that a copy of a whole table was asked for. */
  readonly weightBuilt: (module: string) => void;
}

/** Rows that stand in for rows of the table. */
interface Override {
  readonly indices: Int32Array;
  /** [k, hidden] */
  readonly rows: Tensor;
}

/** How the rows of a new adapter start. */
export interface RowInit {
  /** true: as the base's; false: N(0, 1). */
  readonly init_weights: boolean;
  /** Keep rows in float32 over a bfloat16 or float16 table. */
  readonly autocastAdapterDtype: boolean;
  readonly seed: number;
}

/**
 * Chosen rows of an embedding, a head, or both through a tie, replaced by trained ones. The table is never copied and its dense
 * gradient never formed; `forward` changes nothing. Rows are absolute, not differences.
 */
export class TrainableTokensLayer extends Module {
  readonly base_layer: Embedding | Linear | TiedHead;
  /** Adapter name → rows [k, hidden]. */
  readonly trainable_tokens_delta: Record<string, Tensor> = {};
  readonly #indices = new Map<string, Int32Array>();
  readonly #slots = new Map<string, ReadonlyMap<number, number>>();
  readonly #original = new Map<string, Tensor>();
  readonly #state: AdapterState;
  readonly #table: () => Tensor;

  /** `table` finds the weight whose rows are replaced: the base layer's own, or the one that a tied head shares. */
  constructor(base: Embedding | Linear | TiedHead, state: AdapterState, table: () => Tensor) {
    super();
    this.base_layer = base;
    this.#state = state;
    this.#table = table;
  }

  get adapters(): string[] {
    return [...this.#indices.keys()];
  }
  get table(): Tensor {
    return this.#table();
  }
  has(name: string): boolean {
    return this.#indices.has(name);
  }
  indicesOf(name: string): Int32Array {
    return this.#indices.get(name)!;
  }
  /** The rows of the unadapted table that the adapter replaces, [k, hidden]. */
  originalOf(name: string): Tensor {
    return this.#original.get(name)!;
  }
  get num_embeddings(): number {
    return this.table.shape[0]!;
  }
  get embedding_dim(): number {
    return this.table.shape[1]!;
  }
  get padding_idx(): number | null {
    return this.base_layer instanceof Embedding ? this.base_layer.padding_idx : null;
  }

  /** Adds rows for `ids`, frozen. Originals are the unadapted table's, whatever is merged now. */
  add(name: string, ids: readonly number[], { init_weights, autocastAdapterDtype, seed }: RowInit): void {
    const indices = Int32Array.from(ids);
    untracked(() => {
      using _temporary = new Scope();
      const { table } = this;
      const dtype =
        isStorageDType(table.dtype) && !autocastAdapterDtype
          ? table.dtype
          : table.dtype === "float64"
            ? "float64"
            : "float32";
      const original = this.#unadapted(indices);
      const rows = init_weights ? original : cast(randn(original.shape, seed, "float32", table.backend), table.dtype);
      this.#original.set(name, persist(fresh(original, dtype)));
      this.trainable_tokens_delta[name] = persist(fresh(rows, dtype));
    });
    this.#indices.set(name, indices);
    this.#slots.set(name, new Map(ids.map((id, slot) => [id, slot])));
  }

  /** Adds the very rows that another layer has; originals are this table's. */
  share(name: string, other: TrainableTokensLayer): void {
    const indices = other.indicesOf(name);
    untracked(() => {
      using _temporary = new Scope();
      const original = this.#unadapted(indices);
      this.#original.set(name, persist(fresh(original, other.originalOf(name).dtype)));
    });
    this.trainable_tokens_delta[name] = other.trainable_tokens_delta[name]!;
    this.#indices.set(name, indices);
    this.#slots.set(name, other.#slots.get(name)!);
  }

  /** Reads the originals again, after the base changed below the adapters. */
  rereadOriginals(): void {
    untracked(() => {
      using _temporary = new Scope();
      for (const [name, original] of this.#original) assign(original, this.#unadapted(this.#indices.get(name)!));
    });
  }

  remove(name: string): void {
    this.trainable_tokens_delta[name]!.dispose();
    this.#original.get(name)!.dispose();
    delete this.trainable_tokens_delta[name];
    this.#original.delete(name);
    this.#indices.delete(name);
    this.#slots.delete(name);
  }

  /** Embedding: ids [n] → [n, hidden]. Head: hidden [..., hidden] → logits [..., vocab]. */
  forward(input: Int32Array): Tensor;
  forward(input: Tensor): Tensor;
  forward(input: Int32Array | Tensor): Tensor {
    if (input instanceof Int32Array) return this.#embed(input);
    const base = this.base_layer as Linear | TiedHead;
    return this.#overrideLogits(base.forward(input), input, base instanceof Linear ? base.bias : null);
  }

  /** hidden [..., hidden] → logits [..., vocab], through a tied head. */
  unembed(x: Tensor): Tensor {
    return this.#overrideLogits((this.base_layer as Embedding).unembed(x), x, null);
  }

  #embed(ids: Int32Array): Tensor {
    const base = this.base_layer as Embedding;
    let x = base.forward(ids);
    for (const { indices, rows } of this.#overrides()) {
      const slotOf = new Map(Array.from(indices, (id, slot) => [id, slot]));
      const slots = ids.map((id) => slotOf.get(id) ?? -1);
      if (rows.tracked || slots.some((slot) => slot >= 0)) x = overrideRows(x, this.#asStored(rows), slots);
    }
    return x.tracked ? base.withoutPaddingGradient(ids, x) : x;
  }

  #overrideLogits(logits: Tensor, x: Tensor, bias: Tensor | null): Tensor {
    return this.#overrides().reduce((y, { indices, rows }) => {
      const columns = linear(x, this.#asStored(rows), bias && takeRows(bias, indices));
      return overrideColumns(y, columns, indices);
    }, logits);
  }

  /** Enabled: active rows that are not in the table already. Disabled: base rows where merged ones are. */
  #overrides(): Override[] {
    const { enabled, active, merged } = this.#state;
    const names = enabled ? active.filter((name) => !merged.includes(name)) : merged;
    return names
      .filter((name) => this.has(name))
      .map((name) => ({
        indices: this.#indices.get(name)!,
        rows: enabled ? this.trainable_tokens_delta[name]! : this.#original.get(name)!,
      }));
  }

  /** Rows rounded to the table's dtype, as merging would round them. */
  #asStored(rows: Tensor): Tensor {
    return cast(rows, this.table.dtype);
  }

  /** Rows of the table without what is merged into it, [k, hidden] in its dtype. */
  #unadapted(indices: Int32Array): Tensor {
    let rows = cast(takeRows(this.table, indices), this.table.dtype);
    for (const name of this.#state.merged) {
      const slots = this.#slots.get(name);
      if (slots)
        rows = cast(
          overrideRows(
            rows,
            this.#original.get(name)!,
            indices.map((id) => slots.get(id) ?? -1),
          ),
          this.table.dtype,
        );
    }
    return rows;
  }

  /** Writes trained (or original) rows into the table, in place. */
  write(name: string, rows: "trained" | "original"): void {
    untracked(() => {
      using _views = new Scope();
      const source = rows === "trained" ? this.trainable_tokens_delta[name]! : this.#original.get(name)!;
      writeRows(this.table, this.#indices.get(name)!, source);
    });
  }

  /** A copy of the table without what is merged into it. */
  unadaptedTable(): Tensor {
    return this.#tableWith(
      this.#state.merged
        .filter((name) => this.has(name))
        .map((name) => ({ indices: this.#indices.get(name)!, rows: this.#original.get(name)! })),
    );
  }

  /** A copy of the table with the rows in effect, for whoever reads a plain layer's weight; it is built anew each time. */
  get weight(): Tensor {
    this.#state.weightBuilt(this.base_layer.constructor.name);
    return this.#tableWith(this.#overrides());
  }

  #tableWith(overrides: readonly Override[]): Tensor {
    return untracked(() => {
      const copy = fresh(this.table, this.table.dtype);
      using _views = new Scope();
      for (const { indices, rows } of overrides) writeRows(copy, indices, rows);
      return copy;
    });
  }

  /** Values that merging would write and that are not finite: how many, and the first one's row and column. */
  async nonFinite(name: string): Promise<{ count: number; row: number; column: number } | null> {
    const rows = this.trainable_tokens_delta[name]!;
    const written = untracked(() => fresh(cast(rows, this.table.dtype), "float32"));
    const values = await written.data();
    written.dispose();
    const at = Array.from(values).flatMap((value, i) => (Number.isFinite(value) ? [] : [i]));
    const width = rows.shape[1]!;
    return at.length === 0 ? null : { count: at.length, row: Math.floor(at[0]! / width), column: at[0]! % width };
  }
}

/** table[indices[i]] = rows[i], in the table's dtype. */
function writeRows(table: Tensor, indices: Int32Array, rows: Tensor): void {
  indices.forEach((id, slot) => assign(slice(table, 0, id, id + 1), slice(rows, 0, slot, slot + 1)));
}

/** A copy in the given dtype. */
function fresh(t: Tensor, dtype: DType): Tensor {
  const copy = zeros(t.shape, dtype, t.backend);
  assign(copy, t);
  return copy;
}
