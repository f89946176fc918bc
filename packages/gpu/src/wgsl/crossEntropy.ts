import { type FloatDType, scalars } from "./elements.ts";
import { reductions } from "./rows.ts";
import type { TunedKernel } from "./tunedKernel.ts";

const LANES = 256;
const LARGEST_AXIS = 65_535;
const INTEGERS = ["n", "rows", "xAt", "idsAt", "gAt", "outAt", "ignore"];

const rowGroups = ({ rows }: Readonly<Record<string, number>>): readonly [number, number, number] => {
  const deep = Math.ceil(rows! / LARGEST_AXIS);
  return [Math.ceil(rows! / deep), deep, 1];
};

/** What both passes over the logits begin with: log Σ exp of the workgroup's row. Rows with `ignore` as their target do nothing. */
const ROW = `
  let row = i32(group.x + group.y * groups.x);
  if (row >= p.rows) { return; }
  let start = p.xAt + row * p.n;
  var m = -3.4028234e38;
  for (var j = lane; j < p.n; j += ${LANES}) { m = max(m, x_at(start + j)); }
  let largest = largest_of(m, lane);
  var s = 0.0;
  for (var j = lane; j < p.n; j += ${LANES}) { s += exp(x_at(start + j) - largest); }
  let log_total = log(sum_of(s, lane));
  let id = i32(ids[p.idsAt + row]);`;

/** Counts the rows whose target is not `ignore`, in every lane. */
const COUNTED = `
  var c = 0.0;
  for (var i = lane; i < p.rows; i += ${LANES}) { c += f32(i32(ids[p.idsAt + i]) != p.ignore); }
  let counted = sum_of(c, lane);`;

/** x [rows, n], ids [rows] → each row's log Σ exp(x) − x[id], 0 where the id is `ignore`. */
export function tokenLosses(dtype: FloatDType): TunedKernel {
  const { element, declaration } = scalars("x", dtype);
  return {
    key: `tokenLosses:${dtype}`,
    arrays: [
      { name: "x", element },
      { name: "ids", element: "f32" },
    ],
    result: "f32",
    integers: INTEGERS,
    floats: [],
    workgroup: [LANES, 1, 1],
    declarations: declaration + reductions(LANES),
    body: `${ROW}
  if (lane == 0) { result[p.outAt + row] = select(log_total - (x_at(start + id) - largest), 0.0, id == p.ignore); }`,
    groups: rowGroups,
  };
}

/** x [rows] (losses), ids [rows] → Σ x / the number of rows that count. */
export const meanLoss: TunedKernel = {
  key: "meanLoss",
  arrays: [
    { name: "x", element: "f32" },
    { name: "ids", element: "f32" },
  ],
  result: "f32",
  integers: INTEGERS,
  floats: [],
  workgroup: [LANES, 1, 1],
  declarations: reductions(LANES),
  body: `${COUNTED}
  var s = 0.0;
  for (var i = lane; i < p.rows; i += ${LANES}) { s += x[p.xAt + i]; }
  let total = sum_of(s, lane);
  if (lane == 0) { result[p.outAt] = total / counted; }`,
  groups: () => [1, 1, 1],
};

/** x [rows, n], ids [rows], g [] → (softmax(x) − one-hot ids)·g / the number of rows that count, 0 in the others. */
export function crossEntropyGradient(dtype: FloatDType): TunedKernel {
  const { element, declaration } = scalars("x", dtype);
  return {
    key: `crossEntropyGradient:${dtype}`,
    arrays: [
      { name: "x", element },
      { name: "ids", element: "f32" },
      { name: "g", element: "f32" },
    ],
    result: "f32",
    integers: INTEGERS,
    floats: [],
    workgroup: [LANES, 1, 1],
    declarations: declaration + reductions(LANES),
    body: `${ROW}${COUNTED}
  let share = g[p.gAt] / counted;
  for (var j = lane; j < p.n; j += ${LANES}) {
    let off = exp(x_at(start + j) - largest - log_total) - f32(j == id);
    result[p.outAt + row * p.n + j] = select(off * share, 0.0, id == p.ignore);
  }`,
    groups: rowGroups,
  };
}
