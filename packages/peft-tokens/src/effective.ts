import type { Tensor } from "@neolog/tensor";

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

/** Rows that stand in for rows of the table as it is stored. */
export interface Override {
  readonly indices: Int32Array;
  readonly slots: ReadonlyMap<number, number>;
  /** [k, hidden] */
  readonly rows: Tensor;
}

/** Which adapters of a model count. All its layers share one and ask it, at every call, what they apply. */
export class EffectiveSet {
  enabled = true;
  /** Dropout is active. */
  training = false;
  /** In the order they were set. */
  active: readonly string[] = [];
  /** In the order they were merged. */
  merged: readonly string[] = [];

  /** Adapters whose effect shows: merged ones, then active ones. */
  get effective(): readonly string[] {
    return this.enabled ? [...new Set([...this.merged, ...this.active])] : [];
  }

  /** Adapters that layers add to the base as it is stored. */
  get applied(): readonly string[] {
    return this.enabled ? this.active.filter((name) => !this.merged.includes(name)) : [];
  }

  /** What one side of a table's layer overrides: active rows that are not in the table; while disabled, base rows where merged ones are. */
  overrides(rows: ReadonlyMap<string, TokenRows>, side: Side): Override[] {
    const names = this.enabled ? this.applied : this.merged;
    return names.flatMap((name) => {
      const own = rows.get(name);
      if (!own || (own.sides !== "both" && own.sides !== side)) return [];
      return [{ indices: own.indices, slots: own.slots, rows: this.enabled ? own.delta : own.original }];
    });
  }
}
