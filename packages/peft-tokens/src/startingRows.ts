import {
  Scope,
  type Tensor,
  add,
  cat,
  expand,
  isStorageDType,
  cast,
  matmul,
  mean,
  mul,
  normalAt,
  sqrt,
  square,
  sub,
  sum,
  tensor,
  untracked,
} from "@neolog/tensor";
import { type InitPolicy, initialRows, panelsWithout, ruleOf } from "./init.ts";
import type { OnWarning } from "./warnings.ts";

/** A table whose rows others start from. */
export class RowTable {
  readonly weight: Tensor;
  readonly #take: (ids: Int32Array) => Tensor;

  /** `take` gives rows of `weight` as they are to be read, [n, width]. */
  constructor(weight: Tensor, take: (ids: Int32Array) => Tensor) {
    this.weight = weight;
    this.#take = take;
  }

  get count(): number {
    return this.weight.shape[0]!;
  }
  get width(): number {
    return this.weight.shape[1]!;
  }
  /** ids [n] → [n, width], float32 for a table of 16 bits. */
  rows(ids: Int32Array): Tensor {
    return untracked(() => {
      using scope = new Scope();
      const rows = this.#take(ids);
      return scope.keep(isStorageDType(rows.dtype) ? cast(rows, "float32") : rows);
    });
  }
}

/**
 * The rows that `ids` start with, [k, width]; the same for the same seed. The policy must have been checked. Where the host can read the
 * table at once they are computed in float64; else where it lies, in float32, and then draws of the full covariance are others, of the
 * same distribution, and rows that do not spread start as the mean without a warning.
 */
export function startingRows(
  table: RowTable,
  ids: readonly number[],
  policy: InitPolicy,
  seed: number,
  onWarning: OnWarning,
): Tensor {
  return untracked(() => {
    using scope = new Scope();
    const { count, width, weight } = table;
    if (!weight.backend.readSync) return scope.keep(onDevice(table, ids, policy, seed));
    const read = (of: Int32Array): ArrayLike<number> => {
      using _rows = new Scope();
      return table.rows(of).dataSync();
    };
    const rows = initialRows({ count, width, read }, ids, policy, seed, onWarning);
    return scope.keep(written(rows, [ids.length, width], weight));
  });
}

function onDevice(table: RowTable, ids: readonly number[], policy: InitPolicy, seed: number): Tensor {
  const rule = ruleOf(policy);
  const shape = [ids.length, table.width] as const;
  const rowsOf = (of: readonly number[]): Tensor => table.rows(Int32Array.from(of));
  switch (rule.kind) {
    case "original":
      return rowsOf(ids);
    case "copy":
      return rowsOf(rule.from);
    case "random":
      return mul(
        normals(shape, (i) => normalAt(seed, i), table.weight),
        rule.std ?? 1,
      );
    case "mean":
      return expand(meanOfOthers(table, ids), shape);
    case "description":
      return cat(
        rule.tokens.map((tokens) => mean(rowsOf(tokens), 0, true)),
        0,
      );
    case "normal": {
      const center = meanOfOthers(table, ids);
      const draws = rule.covariance === "full" ? fullDraws : diagonalDraws;
      return add(center, mul(draws(table, ids, center, seed), Math.sqrt(rule.scale ?? 1e-9)));
    }
  }
}

const meanOfOthers = (table: RowTable, ids: readonly number[]): Tensor =>
  meanOver(table, ids, (rows) => sum(rows, 0, true));

/** [k, width]: standard normal numbers times the deviation of each component. */
function diagonalDraws(table: RowTable, ids: readonly number[], center: Tensor, seed: number): Tensor {
  const deviations = sqrt(meanOver(table, ids, (rows) => sum(square(sub(rows, center)), 0, true)));
  return mul(
    normals([ids.length, table.width], (i) => normalAt(seed, i), table.weight),
    deviations,
  );
}

/** [k, width]: sums of all rows, centred and over √n, times standard normal numbers: their covariance is the rows', no factor is needed. */
function fullDraws(table: RowTable, ids: readonly number[], center: Tensor, seed: number): Tensor {
  const n = table.count - new Set(ids).size;
  return mul(
    meanOver(table, ids, (rows, at) => {
      const size = rows.shape[0]!;
      const z = (i: number): number => normalAt(seed, Math.floor(i / size) * n + at + (i % size));
      return matmul(normals([ids.length, size], z, table.weight), sub(rows, center));
    }),
    Math.sqrt(n),
  );
}

/** The sum of what `f` gives for the rows of all other ids, panel by panel, over their number; `at` counts the rows before a panel. */
function meanOver(table: RowTable, ids: readonly number[], f: (rows: Tensor, at: number) => Tensor): Tensor {
  let total: Tensor | null = null;
  let at = 0;
  for (const panel of panelsWithout(table.count, ids)) {
    using scope = new Scope();
    const part = f(table.rows(panel), at);
    const before: Tensor | null = total;
    total = scope.keep(before ? add(before, part) : part);
    before?.dispose();
    at += panel.length;
  }
  return mul(total!, 1 / at);
}

const normals = (shape: readonly number[], z: (i: number) => number, like: Tensor): Tensor =>
  written(
    Float64Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => z(i)),
    shape,
    like,
  );

const written = (values: ArrayLike<number>, shape: readonly number[], { dtype, backend }: Tensor): Tensor =>
  tensor(Array.from(values), shape, dtype === "float64" ? dtype : "float32", backend);
