import { IndexError, ShapeError, type Tensor, formatShape, intTensor } from "@neolog/tensor";

/** Rows of equal length, an int32 tensor [B, T], or the same on the host, which is taken as it is. */
export type IdMatrix = readonly (readonly number[])[] | Tensor | HostMatrix;

/** A matrix of integers on the host, row-major. */
export interface HostMatrix {
  readonly values: Int32Array;
  readonly rows: number;
  readonly columns: number;
}

/** Brings ids to the host. Throws ShapeError for rows of unequal length or none, IndexError for what is no integer. */
export function toHost(name: string, matrix: IdMatrix): HostMatrix {
  if ("rows" in matrix) return checked(name, matrix);
  if (!Array.isArray(matrix)) return fromTensor(name, matrix as Tensor);
  const rows = matrix as readonly (readonly number[])[];
  const columns = rows[0]?.length ?? 0;
  const uneven = rows.find((row) => row.length !== columns);
  if (uneven) throw new ShapeError(name, "rows must have one length; pad them", [columns], [uneven.length]);
  if (columns === 0) throw new ShapeError(name, "at least one row and one column are needed", [rows.length, columns]);
  const values = rows.flat();
  const fraction = values.find((value) => !Number.isInteger(value));
  if (fraction !== undefined) throw new IndexError(name, "values must be integers", fraction);
  return { values: Int32Array.from(values), rows: rows.length, columns };
}

function fromTensor(name: string, t: Tensor): HostMatrix {
  const [rows, columns] = t.shape;
  if (t.shape.length !== 2) throw new ShapeError(name, "a tensor [B, T] is needed", t.shape);
  return { values: Int32Array.from(t.dataSync()), rows: rows!, columns: columns! };
}

function checked(name: string, matrix: HostMatrix): HostMatrix {
  const { values, rows, columns } = matrix;
  if (values instanceof Int32Array && values.length === rows * columns && values.length > 0) return matrix;
  throw new ShapeError(
    name,
    "values must be an Int32Array of rows · columns integers",
    [rows, columns],
    [values.length],
  );
}

/** The same, checked against the size of input_ids. */
export function toHostLike(name: string, matrix: IdMatrix, rows: number, columns: number): HostMatrix {
  const host = toHost(name, matrix);
  if (host.rows !== rows || host.columns !== columns) {
    throw new ShapeError(name, `the size must be ${formatShape([rows, columns])} to go with input_ids`, [
      host.rows,
      host.columns,
    ]);
  }
  return host;
}

/** Targets of a causal language model: position t predicts label t + 1; −100 at the end of each row. [B · T] */
export function shiftedTargets({ values, rows, columns }: HostMatrix): Int32Array {
  const targets = new Int32Array(values.length).fill(-100);
  for (let row = 0; row < rows; row++) {
    targets.set(values.subarray(row * columns + 1, (row + 1) * columns), row * columns);
  }
  return targets;
}

/** Positions 0, 1, … of each row, after `past` cached ones. [B · T] */
export function defaultPositions({ rows, columns }: HostMatrix, past: number): Int32Array {
  return Int32Array.from({ length: rows * columns }, (_, i) => past + (i % columns));
}

/** Positions that count the tokens of each row alone: those of attention_mask [B, past + T] up to each, and −1 at padding. [B · T] */
export function maskedPositions({ columns }: HostMatrix, { values, columns: all }: HostMatrix): Int32Array {
  let seen = 0;
  const positions = values.map((token, i) => {
    if (i % all === 0) seen = 0;
    return token ? seen++ : -1;
  });
  return positions.filter((_, i) => i % all >= all - columns);
}

/**
 * Where the text of each position begins, in rows that hold several: a position that does not follow the one before it begins
 * another text, as transformers reads packed rows. Null where each row holds one. [B · T]
 */
export function textStarts({ rows, columns }: HostMatrix, positions: Int32Array): Int32Array | null {
  const starts = new Int32Array(rows * columns);
  for (let i = 0; i < starts.length; i++) {
    const t = i % columns;
    starts[i] = t === 0 ? 0 : positions[i] === positions[i - 1]! + 1 ? starts[i - 1]! : t;
  }
  return starts.some((start) => start > 0) ? starts : null;
}

/**
 * int32 [B | 1, 1, T, S]: 1 where query t may attend to key s, for the last S = T + min(past, window − 1) positions: those that a
 * layer with that window can see. A query sees the `window` positions up to its own, all where that is null, but no padding and no
 * other text: attention_mask covers all past + T positions, `starts` says for each of the T where its text begins.
 */
export function causalMask(
  { rows: batch, columns: queries }: HostMatrix,
  past: number,
  attentionMask: HostMatrix | null,
  window: number | null,
  starts: Int32Array | null = null,
): Tensor {
  const held = window === null ? past : Math.min(past, window - 1);
  const keys = held + queries;
  const padding = attentionMask?.values.includes(0) ? attentionMask.values : null;
  const rows = padding || starts ? batch : 1;
  const mask = new Int32Array(rows * queries * keys);
  for (let row = 0; row < rows; row++) {
    const firstKey = row * (past + queries) + past - held;
    for (let t = 0; t < queries; t++) {
      const at = (row * queries + t) * keys;
      const end = held + t + 1;
      const start = Math.max(starts?.[row * queries + t] ?? 0, window === null ? 0 : end - window);
      mask.fill(1, at + start, at + end);
      if (padding) for (let s = start; s < end; s++) if (padding[firstKey + s] === 0) mask[at + s] = 0;
    }
  }
  return intTensor(mask, [rows, 1, queries, keys]);
}

/** The masks of one forward pass, one for all layers that have a window in common. */
export function causalMasks(
  ids: HostMatrix,
  past: number,
  attentionMask: HostMatrix | null,
  starts: Int32Array | null = null,
): (window: number | null) => Tensor {
  const made = new Map<number | null, Tensor>();
  return (window) => {
    const key = window !== null && window < past + ids.columns ? window : null;
    const mask = made.get(key) ?? causalMask(ids, past, attentionMask, key, starts);
    made.set(key, mask);
    return mask;
  };
}

/** int32 [B | 1, 1, 1, S]: 1 where any query may attend to key s, that is where attention_mask is not 0. */
export function paddingMask({ rows, columns }: HostMatrix, attentionMask: HostMatrix | null): Tensor {
  if (!attentionMask?.values.includes(0)) return intTensor(new Int32Array(columns).fill(1), [1, 1, 1, columns]);
  return intTensor(
    attentionMask.values.map((value) => (value === 0 ? 0 : 1)),
    [rows, 1, 1, columns],
  );
}
