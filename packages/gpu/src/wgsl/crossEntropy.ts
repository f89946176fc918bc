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
  if (row >= params.rows) { return; }
  let start = params.xAt + row * params.n;
  var m = -3.4028234e38;
  for (var j = lane; j < params.n; j += ${LANES}) { m = max(m, x_at(start + j)); }
  let largest = largest_of(m, lane);
  var s = 0.0;
  for (var j = lane; j < params.n; j += ${LANES}) { s += expOf(x_at(start + j) - largest); }
  let log_total = logOf(sum_of(s, lane));
  let id = i32(ids[params.idsAt + row]);`;

/** Counts the rows whose target is not `ignore`, in every lane. */
const COUNTED = `
  var c = 0.0;
  for (var i = lane; i < params.rows; i += ${LANES}) { c += f32(i32(ids[params.idsAt + i]) != params.ignore); }
  let counted = sum_of(c, lane);`;

/** x [rows, n], ids [rows] → each row's log Σ expOf(x) − x[id], 0 where the id is `ignore`. */
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
  if (lane == 0) { result[params.outAt + row] = select(log_total - (x_at(start + id) - largest), 0.0, id == params.ignore); }`,
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
  for (var i = lane; i < params.rows; i += ${LANES}) { s += x[params.xAt + i]; }
  let total = sum_of(s, lane);
  if (lane == 0) { result[params.outAt] = total / counted; }`,
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
  let share = g[params.gAt] / counted;
  for (var j = lane; j < params.n; j += ${LANES}) {
    let off = expOf(x_at(start + j) - largest - log_total) - f32(j == id);
    result[params.outAt + row * params.n + j] = select(off * share, 0.0, id == params.ignore);
  }`,
    groups: rowGroups,
  };
}
