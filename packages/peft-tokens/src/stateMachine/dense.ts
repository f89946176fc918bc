/** The oracle: dense tables and weights, a map of adapters and three flags, kept without any of the code under test. */
export const VOCAB = 9;
export const HIDDEN = 4;

/** Two lookups read a table each, the head a third; on a tie the first and the head have one. */
export const SIDES = ["input", "second", "output"] as const;
export type Side = (typeof SIDES)[number];
export type Sides<T> = Readonly<Record<Side, T>>;

/** Modules that LoRA adapts, and their [out, in]. */
export const LINEARS = { up_proj: [3, HIDDEN], down_proj: [HIDDEN, 3] } as const;
export type LinearName = keyof typeof LINEARS;
export const LINEAR_NAMES: readonly LinearName[] = ["up_proj", "down_proj"];

export const everySide = <T>(value: (side: Side) => T): Sides<T> => ({
  input: value("input"),
  second: value("second"),
  output: value("output"),
});

export type OverlapPolicy = "error" | "first" | "last";

/** What an adapter's config targets. */
export const WHERE = {
  embedding: ["input"],
  second: ["second"],
  head: ["output"],
  both: ["input", "output"],
  all: ["input", "second", "output"],
} as const satisfies Readonly<Record<string, readonly Side[]>>;
export type Where = keyof typeof WHERE;

/** s·B·A, A [r, in], B [out, r]. */
export interface DenseLora {
  readonly A: Float32Array;
  readonly B: Float32Array;
  readonly r: number;
  readonly scale: number;
}
export type Loras = Partial<Readonly<Record<LinearName, DenseLora>>>;
export type Linears = Readonly<Record<LinearName, Float32Array>>;

export interface DenseAdapter {
  ids: readonly number[];
  /** [ids, HIDDEN] of each side it reaches; one array where both sides read the same rows. */
  rows: Partial<Record<Side, Float32Array>>;
  lora: Loras;
  requiresGrad: boolean;
}

export class Dense {
  /** W₀ */
  tables: Sides<Float32Array>;
  linears: Linears;
  tied: boolean;
  readonly adapters = new Map<string, DenseAdapter>();
  active: readonly string[] = [];
  overlap: OverlapPolicy = "error";
  merged: readonly string[] = [];
  enabled = true;

  constructor(tables: Sides<Float32Array>, linears: Linears, tied: boolean) {
    this.tables = tables;
    this.linears = linears;
    this.tied = tied;
  }

  /** Sides that rows of a target reach. */
  sidesOf(where: Where): readonly Side[] {
    return where === "embedding" && this.tied ? WHERE.both : WHERE[where];
  }
  get(name: string): DenseAdapter {
    return this.adapters.get(name)!;
  }
  knows(names: readonly string[]): boolean {
    return names.every((name) => this.adapters.has(name));
  }
  /** Adapters that may have the same ids. */
  get sharing(): readonly string[] {
    return this.overlap === "error" ? [] : this.active;
  }
  /** True where two of the adapters have the same id on one side and do not both share. */
  overlaps(names: readonly string[], sharing: readonly string[] = this.sharing): boolean {
    const all = [...new Set(names)];
    return all.some((a, i) =>
      all.slice(0, i).some((b) => {
        if (sharing.includes(a) && sharing.includes(b)) return false;
        const meet = SIDES.some((side) => this.get(a).rows[side] && this.get(b).rows[side]);
        return meet && this.get(a).ids.some((id) => this.get(b).ids.includes(id));
      }),
    );
  }
  /** Owners of shared ids last: only active adapters share, and their order decides. */
  #ownersLast(names: readonly string[]): readonly string[] {
    const active = this.active.filter((name) => names.includes(name));
    const others = names.filter((name) => !active.includes(name));
    return [...others, ...(this.overlap === "first" ? active.toReversed() : active)];
  }
  /** Which adapter's row an id has on a side. */
  ownerOf(id: number, side: Side): string | undefined {
    return this.#ownersLast(this.effective).findLast((n) => this.get(n).rows[side] && this.get(n).ids.includes(id));
  }
  /** The longest beginning of the known names that may be in effect beside `staying`. */
  possible(names: readonly string[], staying: readonly string[] = [], sharing = this.sharing): string[] {
    return names
      .filter((name) => this.adapters.has(name))
      .reduce<string[]>(
        (kept, name) => (this.overlaps([...staying, ...kept, name], sharing) ? kept : [...kept, name]),
        [],
      );
  }
  /** Merged and active adapters, while enabled. */
  get effective(): readonly string[] {
    return this.enabled ? [...new Set([...this.merged, ...this.active])] : [];
  }
  /** True where rows hold for one side of the tie only. */
  isOneSided(name: string): boolean {
    const { input, output } = this.get(name).rows;
    return this.tied && (input === undefined) !== (output === undefined);
  }
  /** A table of W₀ with the rows of the named adapters. */
  tableWith(side: Side, names: readonly string[]): Float32Array {
    const table = this.tables[side].slice();
    for (const { ids, rows } of this.#ownersLast(names).map((name) => this.get(name))) {
      ids.forEach((id, slot) => {
        const row = rows[side]?.subarray(slot * HIDDEN, (slot + 1) * HIDDEN);
        if (row) table.set(row, id * HIDDEN);
      });
    }
    return table;
  }
  tablesWith(names: readonly string[]): Sides<Float32Array> {
    return everySide((side) => this.tableWith(side, names));
  }
  /** W₀ + Σ s·B·A over the named adapters, summed in float64. */
  linearsWith(names: readonly string[]): Linears {
    const summed = (module: LinearName): Float32Array => {
      const [out, into] = LINEARS[module];
      const loras = names.flatMap((name) => this.get(name).lora[module] ?? []);
      return this.linears[module].map((w, at) => {
        const [i, j] = [Math.floor(at / into), at % into];
        return loras.reduce((sum, { A, B, r, scale }) => {
          if (A.length !== r * into || B.length !== out * r) throw new Error(`${module}: shapes of LoRA`);
          for (let k = 0; k < r; k++) sum += scale * B[i * r + k]! * A[k * into + j]!;
          return sum;
        }, w);
      });
    };
    return { up_proj: summed("up_proj"), down_proj: summed("down_proj") };
  }
  /** True where one of the adapters has LoRA: then numbers are near, not equal. */
  isNear(names: readonly string[]): boolean {
    return names.some((name) => Object.keys(this.get(name).lora).length > 0);
  }
  /** W₀'s rows of some ids. */
  originals(side: Side, ids: readonly number[]): Float32Array {
    const rows = new Float32Array(ids.length * HIDDEN);
    ids.forEach((id, slot) => rows.set(this.tables[side].subarray(id * HIDDEN, (id + 1) * HIDDEN), slot * HIDDEN));
    return rows;
  }
  /** Adapters that a step changes. */
  get training(): readonly string[] {
    return this.enabled ? this.active.filter((name) => !this.merged.includes(name) && this.get(name).requiresGrad) : [];
  }
  /** Numbers that an adapter holds; shared rows once. */
  sizeOf(name: string): number {
    const { rows, lora } = this.get(name);
    const matrices = Object.values(lora).flatMap(({ A, B }) => [A, B]);
    return [...new Set(Object.values(rows)), ...matrices].reduce((n, { length }) => n + length, 0);
  }
  activate(names: readonly string[], requiresGrad: boolean, overlap: OverlapPolicy): void {
    this.overlap = overlap;
    this.active = [...new Set(names)];
    this.merged = [];
    for (const [name, adapter] of this.adapters) adapter.requiresGrad = requiresGrad && this.active.includes(name);
  }
  delete(name: string): void {
    const wasActive = this.active.includes(name);
    this.adapters.delete(name);
    this.active = this.active.filter((other) => other !== name);
    if (!wasActive || this.active.length > 0) return;
    const next = [...this.adapters.keys()].toSorted().find((other) => !this.overlaps([...this.merged, other], []));
    if (next === undefined) return;
    this.active = [next];
    this.get(next).requiresGrad = true;
  }
}
