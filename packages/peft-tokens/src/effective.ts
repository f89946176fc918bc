import { Random, type Tensor, randomBits, takeRows } from "@neolog/tensor";

/** The uses of an embedding's table: lookups, or logits through a tied head. */
export type Side = "input" | "output";
/** The sides on which an adapter's rows hold. */
export type Sides = Side | "both";

/** An adapter's rows in one layer. */
export interface TokenRows {
  /** Row i belongs to the token indices[i]. */
  readonly indices: Int32Array;
  /** Token → row. */
  readonly slots: ReadonlyMap<number, number>;
  /** Trained rows, absolute, [k, hidden] */
  readonly delta: Tensor;
  /** The rows of the unadapted table, [k, hidden] */
  readonly original: Tensor;
  readonly sides: Sides;
}

/** Adapter → its rows in one layer. */
export type AdapterRows = ReadonlyMap<string, TokenRows>;

/** Rows that stand in for rows of the table as it is stored. */
export interface Override {
  readonly indices: Int32Array;
  readonly slots: ReadonlyMap<number, number>;
  /** [k, hidden] */
  readonly rows: Tensor;
  /** The samples of a batch to which they apply; null for all. */
  readonly samples: Samples | null;
}

/** A flag for each sample of a batch. */
export type Samples = readonly boolean[];

/** Whose row an id has that several active adapters train: the first or the last named; by default that is an error. */
export type OverlapPolicy = "error" | "first" | "last";

/** What a call applies, whatever is set, merged or swapped while it runs. */
export interface Call {
  readonly enabled: boolean;
  /** Merged adapters, then active ones. */
  readonly effective: readonly string[];
  /** In the order they were set. */
  readonly active: readonly string[];
  /** Those of them that were not merged. */
  readonly applied: readonly string[];
  readonly overlap: OverlapPolicy;
  /** Adapter → samples; absent: all. */
  readonly samples: ReadonlyMap<string, Samples>;
  /** A layer's parts → those that it had when the call began; absent: as they are. */
  readonly parts: ReadonlyMap<Parts, Parts>;
}
/** What a layer keeps of each adapter. */
export type Parts = ReadonlyMap<string, unknown>;

/** Which adapters of a model count. All its layers share one and ask it, at every call, what they apply. */
export class EffectiveSet {
  enabled = true;
  /** Dropout is active. */
  training = false;
  /** Where the masks of dropout come from; seed and counter are all its state. */
  dropout = new Random(0);
  /** In the order they were set. */
  active: readonly string[] = [];
  /** In the order they were merged. */
  merged: readonly string[] = [];
  overlap: OverlapPolicy = "error";
  #call: Call | null = null;

  /** Runs `f`, which must be synchronous, as part of a call. */
  during<T>(call: Call, f: () => T): T {
    const outer = this.#call;
    this.#call = call;
    try {
      return f();
    } finally {
      this.#call = outer;
    }
  }

  /** A function that runs something as part of the present call and with the masks of dropout that come next now. */
  asNow(): <T>(run: () => T) => T {
    const call = this.#call;
    const { seed, counter } = this.dropout;
    return (run) => {
      const [outer, dropout] = [this.#call, this.dropout];
      this.#call = call;
      this.dropout = new Random(seed, counter);
      try {
        return run();
      } finally {
        this.#call = outer;
        this.dropout = dropout;
      }
    };
  }

  /** Merged adapters, then active ones: whose effect shows, or will once they are enabled. */
  get chosen(): readonly string[] {
    return [...new Set([...this.merged, ...this.active])];
  }

  /** Adapters whose effect shows: merged ones, then active ones. */
  get effective(): readonly string[] {
    if (this.#call) return this.#call.effective;
    return this.enabled ? [...new Set([...this.merged, ...this.active])] : [];
  }

  /** Adapters that layers add to the base as it is stored. */
  get applied(): readonly string[] {
    if (this.#call) return this.#call.applied;
    return this.enabled ? this.active.filter((name) => !this.merged.includes(name)) : [];
  }

  /** The samples of the batch to which an adapter applies; null for all. */
  samplesOf(name: string): Samples | null {
    return this.#call?.samples.get(name) ?? null;
  }

  /** A layer's parts as the call sees them. */
  partsOf<T>(parts: ReadonlyMap<string, T>): ReadonlyMap<string, T> {
    return (this.#call?.parts.get(parts) as ReadonlyMap<string, T> | undefined) ?? parts;
  }

  /** What a layer adds to its base as it is stored: parts of applied adapters, in order of activation. */
  appliedParts<T>(parts: ReadonlyMap<string, T>): (readonly [name: string, part: T])[] {
    const own = this.partsOf(parts);
    return this.applied.flatMap((name) => {
      const part = own.get(name);
      return part === undefined ? [] : [[name, part] as const];
    });
  }

  /** A new seed for one use of dropout. */
  nextDropoutSeed(): number {
    return randomBits(this.dropout.seed, this.dropout.counter++);
  }

  /**
   * What one side of a table's layer overrides: rows in effect that are not in the table, and base rows where others are. `rivals`: the
   * rows of all layers that reach that side of the table.
   */
  overrides(rows: AdapterRows, side: Side, rivals: () => readonly AdapterRows[]): Override[] {
    const own = this.partsOf(rows);
    const enabled = this.#call?.enabled ?? this.enabled;
    const names = !enabled ? [] : this.#call ? this.effective : this.applied;
    const hidden = enabled && !this.#call ? [] : this.merged.filter((name) => !names.includes(name));
    const trained = on(side, own, this.#ascending(names)).map(({ name, part }) => ({
      ...owned(part, this.foreign(name, rivals, side)),
      samples: this.samplesOf(name),
    }));
    return [
      ...on(side, rows, hidden).map(({ part }) => ({ ...part, rows: part.original, samples: null })),
      ...trained.filter(({ indices }) => indices.length > 0),
    ];
  }

  /** Ids of an adapter that belong to another one in effect on that side. */
  foreign(name: string, rivals: () => readonly AdapterRows[], side: Side, among = this.effective): Set<number> {
    const overlap = this.#call?.overlap ?? this.overlap;
    if (overlap === "error") return new Set();
    const order = this.#ascending(among);
    const owners = order.slice(order.indexOf(name) + 1);
    const theirs = rivals().flatMap((rows) => on(side, this.partsOf(rows), owners));
    return new Set(theirs.flatMap(({ part }) => [...part.indices]));
  }

  /** Owners of shared rows last: only active adapters share rows, and their order decides. */
  #ascending(names: readonly string[]): readonly string[] {
    const { active, overlap } = this.#call ?? this;
    const place = (name: string): number => active.indexOf(name) * (overlap === "first" ? -1 : 1);
    return overlap === "error" ? names : names.toSorted((a, b) => place(a) - place(b));
  }
}

/** The parts that hold on a side. */
function on(
  side: Side,
  rows: AdapterRows,
  names: readonly string[],
): { readonly name: string; readonly part: TokenRows }[] {
  return names.flatMap((name) => {
    const part = rows.get(name);
    return part && (part.sides === "both" || part.sides === side) ? [{ name, part }] : [];
  });
}

/** The trained rows of an adapter's own ids. */
function owned(part: TokenRows, foreign: ReadonlySet<number>): Omit<Override, "samples"> {
  const { indices, slots, delta } = part;
  if (!indices.some((id) => foreign.has(id))) return { indices, slots, rows: delta };
  const kept = indices.filter((id) => !foreign.has(id));
  const rows = takeRows(
    delta,
    kept.map((id) => slots.get(id)!),
  );
  return { indices: kept, slots: new Map(Array.from(kept, (id, slot) => [id, slot])), rows };
}
