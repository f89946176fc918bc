import { Embedding, Linear, type LinearHead, type TiedEmbedding, TiedHead } from "@neolog/nn";
import {
  type Backend,
  type DType,
  Scope,
  type Tensor,
  assign,
  cast,
  cat,
  isStorageDType,
  linear,
  overrideColumns,
  overrideRows,
  persist,
  randn,
  slice,
  takeColumns,
  takeRows,
  untracked,
  where,
  zeros,
} from "@neolog/tensor";
import { AdapterLayer, type NonFinite, findNonFinite } from "./adapterLayer.ts";
import type { InitPolicy } from "./init.ts";
import { eachOf, maskOf } from "./samples.ts";
import { RowTable, startingRows } from "./startingRows.ts";
import { type OnWarning, toConsole } from "./warnings.ts";
import type { AdapterRows, EffectiveSet, Override, Parts, Side, Sides, TokenRows } from "./effective.ts";

/** What has a table of rows, or shares one. */
export type TokenBase = Embedding | TiedEmbedding | Linear | TiedHead;

/** What a layer has from its model. */
export interface TokenLayerContext {
  readonly state: EffectiveSet;
  /** The weight whose rows are replaced: the base layer's own, or the one that a tied head shares. */
  readonly table: () => Tensor;
  /** Below LoRA's wrapper, as its `token_adapter`. */
  readonly nested: boolean;
  /** All layers that write into that weight. */
  readonly sharing: () => readonly TrainableTokensLayer[];
  /** Told that a copy of a whole table was asked for. */
  readonly weightBuilt: (module: string) => void;
}

/** How new rows start. */
export interface RowStart {
  /** true: as the base's; false: N(0, 1), in the table's dtype. */
  readonly init_weights: boolean;
  /** Instead of that. */
  readonly policy?: InitPolicy | undefined;
  readonly seed: number;
  /** Told where a policy falls back. */
  readonly onWarning?: OnWarning;
}
/** The rows of a new adapter. */
export interface RowInit extends RowStart {
  /** Where rows replace the table's, for an embedding that is tied to a head; both by default. */
  readonly sides?: Sides;
  /** Keep rows in float32 over a bfloat16 or float16 table. */
  readonly autocastAdapterDtype: boolean;
}

/**
 * Chosen rows of an embedding, a head, or both through a tie, replaced by trained ones. The table is never copied and its dense
 * gradient never formed; `forward` changes nothing. Rows are absolute, not differences.
 */
export class TrainableTokensLayer extends AdapterLayer {
  readonly base_layer: TokenBase;
  /** Adapter name → rows [k, hidden]. */
  readonly trainable_tokens_delta: Record<string, Tensor> = {};
  readonly #rows = new Map<string, TokenRows>();
  readonly #context: TokenLayerContext;

  constructor(base: TokenBase, context: TokenLayerContext) {
    super();
    this.base_layer = base;
    this.#context = context;
  }

  get base(): TokenBase {
    return this.base_layer;
  }
  /** Beside LoRA, as the `token_adapter` of a wrapper. */
  get nested(): boolean {
    return this.#context.nested;
  }
  override get baseKey(): string {
    return this.nested ? "token_adapter.base_layer." : "base_layer.";
  }
  get moduleType(): string {
    return "TrainableTokensLayer";
  }
  get backend(): Backend {
    return this.table.backend;
  }
  get adapters(): string[] {
    return [...this.#rows.keys()];
  }
  override get parts(): Parts {
    return this.#rows;
  }
  get table(): Tensor {
    return this.#context.table();
  }
  indicesOf(name: string): Int32Array {
    return this.#rows.get(name)!.indices;
  }
  override holdsOnTies(name: string): boolean {
    return this.sidesOf(name) === "both";
  }
  sidesOf(name: string): Sides {
    return this.#rows.get(name)!.sides;
  }
  /** The rows of the unadapted table that the adapter replaces, [k, hidden]. */
  originalOf(name: string): Tensor {
    return this.#rows.get(name)!.original;
  }
  tensorsOf(name: string): ReadonlyMap<string, Tensor> {
    const rows = this.#rows.get(name);
    const key = this.nested ? "token_adapter.trainable_tokens_delta" : "trainable_tokens_delta";
    return new Map(rows ? [[key, rows.delta]] : []);
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
  add(name: string, ids: readonly number[], init: RowInit): void {
    const indices = Int32Array.from(ids);
    untracked(() => {
      using _temporary = new Scope();
      const { table } = this;
      const dtype = isStorageDType(table.dtype) && init.autocastAdapterDtype ? "float32" : table.dtype;
      const original = this.#unadapted(indices);
      const slots = slotsOf(ids);
      const delta = persist(fresh(this.#start(ids, original, init), dtype));
      this.#put(name, {
        indices,
        slots,
        sides: init.sides ?? "both",
        delta,
        original: persist(fresh(original, dtype)),
      });
    });
  }

  /** How rows that replace `original` start, [k, hidden]. */
  #start(ids: readonly number[], original: Tensor, { init_weights, policy, seed, onWarning }: RowStart): Tensor {
    const { dtype, backend } = this.table;
    if (policy === undefined)
      return init_weights ? original : cast(randn(original.shape, seed, "float32", backend), dtype);
    return startingRows(this.source, ids, policy, seed, onWarning ?? toConsole);
  }
  /** The unadapted table. */
  get source(): RowTable {
    return new RowTable(this.table, (ids) => this.#unadapted(ids));
  }

  /**
   * An adapter's rows for other tokens, not yet in effect: row i goes on with what row slots[i] had, or starts anew where that is
   * negative. Layers that share their rows do so again, through `replaced`, old → new.
   */
  rearranged(
    name: string,
    ids: readonly number[],
    slots: Int32Array,
    init: RowStart,
    replaced: Map<Tensor, Tensor>,
  ): TokenRows {
    const old = this.#rows.get(name)!;
    return untracked(() => {
      using _temporary = new Scope();
      const indices = Int32Array.from(ids);
      const original = persist(fresh(this.#unadapted(indices), old.original.dtype));
      const delta =
        replaced.get(old.delta) ?? persist(fresh(this.#moved(old.delta, ids, slots, init), old.delta.dtype));
      replaced.set(old.delta, delta);
      return { indices, slots: slotsOf(ids), sides: old.sides, delta, original };
    });
  }
  #moved(old: Tensor, ids: readonly number[], slots: Int32Array, init: RowStart): Tensor {
    const added = ids.filter((_, i) => slots[i]! < 0);
    const kept = cast(takeRows(old, slots), old.dtype);
    if (added.length === 0) return kept;
    const start = this.#start(added, this.#unadapted(Int32Array.from(added)), init);
    const places = slotsOf(added);
    const rowAt = Int32Array.from(ids, (id, i) => (slots[i]! < 0 ? places.get(id)! : -1));
    return overrideRows(kept, cast(start, old.dtype), rowAt);
  }

  /** The tokens have other ids now; rows stay. */
  renumber(positions: ReadonlyMap<number, number>): void {
    for (const [name, rows] of this.#rows) {
      const indices = rows.indices.map((id) => positions.get(id)!);
      this.#put(name, { ...rows, indices, slots: slotsOf([...indices]) });
    }
  }

  /** Puts other rows in the place of an adapter's. The trained rows that it had are the caller's to free. */
  replaceRows(name: string, rows: TokenRows): void {
    this.#rows.get(name)!.original.dispose();
    this.#put(name, rows);
  }

  /** Adds the very rows that another layer has, whose table this one's is a copy of. */
  share(name: string, other: TrainableTokensLayer, sides: Sides = "both"): void {
    const rows = other.#rows.get(name)!;
    const original = untracked(() => persist(fresh(rows.original, rows.original.dtype)));
    this.#put(name, { ...rows, original, sides });
  }

  #put(name: string, rows: TokenRows): void {
    this.#rows.set(name, rows);
    this.trainable_tokens_delta[name] = rows.delta;
  }

  convert(name: string, to: (t: Tensor) => Tensor): void {
    const rows = this.#rows.get(name)!;
    this.#put(name, { ...rows, delta: to(rows.delta), original: to(rows.original) });
  }

  override rereadBase(): void {
    untracked(() => {
      using _temporary = new Scope();
      for (const { original, indices } of this.#rows.values()) assign(original, this.#unadapted(indices));
    });
  }

  remove(name: string): void {
    this.#rows.get(name)?.delta.dispose();
    this.release(name);
  }

  /** Forgets an adapter whose trained rows live on in another layer. */
  release(name: string): void {
    this.#rows.get(name)?.original.dispose();
    this.#rows.delete(name);
    delete this.trainable_tokens_delta[name];
  }

  rename(from: string, to: string): void {
    const rows = this.#rows.get(from)!;
    this.remove(to);
    this.#put(to, rows);
    this.#rows.delete(from);
    delete this.trainable_tokens_delta[from];
  }

  /** Embedding: ids [n] → [n, hidden]. Head: hidden [..., hidden] → logits [..., vocab]. */
  forward(input: Int32Array): Tensor;
  forward(input: Tensor): Tensor;
  forward(input: Int32Array | Tensor): Tensor {
    if (input instanceof Int32Array) return this.#embed(input);
    const base = this.base_layer as Linear | TiedHead;
    return this.#overrideLogits(base.forward(input), input, base.bias);
  }

  /** hidden [..., hidden] → logits [..., vocab], through a tied head. */
  unembed(x: Tensor): Tensor {
    return this.#overrideLogits((this.base_layer as Embedding).unembed(x), x, null);
  }

  #embed(ids: Int32Array): Tensor {
    const base = this.base_layer as Embedding | TiedEmbedding;
    let x: Tensor | null = null;
    for (const { slots, rows, samples } of this.overrides("input")) {
      const counts = samples && eachOf(samples, ids.length);
      const rowAt = ids.map((id, i) => (counts && !counts[i] ? -1 : (slots.get(id) ?? -1)));
      if (!rows.tracked && rowAt.every((slot) => slot < 0)) continue;
      const stored = this.#asStored(rows);
      // what is looked up and what overrides it, in one kernel
      if (!x && base instanceof Embedding) x = base.forwardOverridden(ids, stored, rowAt);
      else x = overrideRows(x ?? base.forward(ids), stored, rowAt);
    }
    x ??= base.forward(ids);
    return x.tracked && base instanceof Embedding ? base.withoutPaddingGradient(ids, x) : x;
  }

  #overrideLogits(logits: Tensor, x: Tensor, bias: Tensor | null): Tensor {
    return this.overrides("output").reduce((y, { indices, rows, samples }) => {
      const columns = linear(x, this.#asStored(rows), bias && takeRows(bias, indices));
      const mixed = samples ? where(maskOf(samples, x), columns, takeColumns(y, indices)) : columns;
      return overrideColumns(y, mixed, indices);
    }, logits);
  }

  /** With the rows in effect; null in a mixed batch, where samples differ. */
  linearHead(): LinearHead | null {
    const { base_layer: base } = this;
    let head = "linearHead" in base ? base.linearHead() : null;
    for (const { indices, rows, samples } of this.overrides("output"))
      head = head && !samples ? overridden(head, indices, this.#asStored(rows)) : null;
    return head;
  }

  /** The rows that stand in for the table's on that side, now. */
  overrides(side: Side): Override[] {
    return this.#context.state.overrides(this.#rows, side, () => this.#rivals(side));
  }
  /** The rows of all layers that reach a side of the table: a head's reach the output alone. */
  #rivals(side: Side): AdapterRows[] {
    const layers = this.#context.sharing().filter((layer) => side === "output" || !layer.#isHead);
    return layers.map((layer) => layer.#rows);
  }
  get #isHead(): boolean {
    return this.base_layer instanceof Linear || this.base_layer instanceof TiedHead;
  }

  /** Rows rounded to the table's dtype, as merging would round them. */
  #asStored(rows: Tensor): Tensor {
    return cast(rows, this.table.dtype);
  }

  /** Rows of the table without what is merged into it, [k, hidden] in its dtype. */
  #unadapted(indices: Int32Array): Tensor {
    let rows = cast(takeRows(this.table, indices), this.table.dtype);
    for (const { slots, original } of this.#merged()) {
      const rowAt = indices.map((id) => slots.get(id) ?? -1);
      rows = cast(overrideRows(rows, original, rowAt), this.table.dtype);
    }
    return rows;
  }

  /** What is merged into the table, in order, through this layer or one that shares it. */
  #merged(): TokenRows[] {
    const layers = this.#context.sharing();
    return this.#context.state.merged.flatMap((name) => layers.flatMap((layer) => layer.#rows.get(name) ?? []));
  }

  /** Rows that a merged adapter owns stay as they are. */
  merge(name: string): void {
    const { state } = this.#context;
    const side = this.#isHead || this.sidesOf(name) === "output" ? "output" : "input";
    const owned = state.foreign(name, () => this.#rivals(side), side, [...state.merged, name]);
    this.#write(name, "delta", owned);
  }
  unmerge(name: string): void {
    this.#write(name, "original");
  }
  #write(name: string, which: "delta" | "original", except?: ReadonlySet<number>): void {
    untracked(() => {
      using _views = new Scope();
      const rows = this.#rows.get(name)!;
      writeRows(this.table, rows.indices, rows[which], except);
    });
  }

  /** A copy of the table without what is merged into it. */
  unadaptedTable(): Tensor {
    return this.#tableWith(this.#merged().map(({ original, ...rows }) => ({ ...rows, rows: original })));
  }

  /** A copy of the table with the rows in effect, for whoever reads a plain layer's weight; it is built anew each time. */
  get weight(): Tensor {
    this.#context.weightBuilt(this.base_layer.constructor.name);
    return this.#tableWith(this.overrides("input"));
  }

  #tableWith(overrides: readonly Pick<Override, "indices" | "rows">[]): Tensor {
    return untracked(() => {
      const copy = fresh(this.table, this.table.dtype);
      using _views = new Scope();
      for (const { indices, rows } of overrides) writeRows(copy, indices, rows);
      return copy;
    });
  }

  nonFinite(name: string): Promise<NonFinite | null> {
    const written = untracked(() => fresh(cast(this.#rows.get(name)!.delta, this.table.dtype), "float32"));
    return findNonFinite(written);
  }
}

/** A head with rows of `columns` replaced, whatever stood in for them before. */
function overridden({ weight, bias, override }: LinearHead, columns: Int32Array, rows: Tensor): LinearHead {
  const replaced = new Set(columns);
  const kept = Int32Array.from(override?.columns.keys() ?? []).filter((i) => !replaced.has(override!.columns[i]!));
  if (kept.length === 0) return { weight, bias, override: { rows, columns } };
  const others = cast(takeRows(override!.rows, kept), rows.dtype);
  const all = Int32Array.of(...kept.map((i) => override!.columns[i]!), ...columns);
  return { weight, bias, override: { rows: cat([others, rows], 0), columns: all } };
}

const slotsOf = (ids: readonly number[]): Map<number, number> => new Map(ids.map((id, slot) => [id, slot]));

/** table[indices[i]] = rows[i], in the table's dtype, but for some ids. */
function writeRows(table: Tensor, indices: Int32Array, rows: Tensor, except: ReadonlySet<number> = new Set()): void {
  indices.forEach((id, slot) => {
    if (!except.has(id)) assign(slice(table, 0, id, id + 1), slice(rows, 0, slot, slot + 1));
  });
}

/** A copy in the given dtype. */
function fresh(t: Tensor, dtype: DType): Tensor {
  const copy = zeros(t.shape, dtype, t.backend);
  assign(copy, t);
  return copy;
}
