import { type FloatDType, scalars } from "./elements.ts";
import type { KernelStyle, TunedKernel } from "./tunedKernel.ts";
import { type Walk, walkOf } from "./walk.ts";

const LANES = 256;
const INTEGERS = ["n", "rows", "xAt", "idsAt", "gAt", "outAt", "ignore"];

/** What both passes over the logits begin with: log Σ exp of the row. Rows with `ignore` as their target do nothing. */
const rowOf = ({ row, each }: Walk): string => `
  let row = ${row};
  if (row >= params.rows) { return; }
  let start = params.xAt + row * params.n;
  var m = -3.4028234e38;
  ${each("m = max(m, x_at(start + j));")}
  let largest = largest_of(m, lane);
  var s = 0.0;
  ${each("s += expOf(x_at(start + j) - largest);")}
  let log_total = logOf(sum_of(s, lane));
  let id = i32(ids[params.idsAt + row]);`;

/** Counts the rows whose target is not `ignore`, in every lane. */
const countedBy = ({ each }: Walk): string => `
  var c = 0.0;
  ${each("c += f32(i32(ids[params.idsAt + i]) != params.ignore);", "i", "params.rows")}
  let counted = sum_of(c, lane);`;

/** x [rows, n], ids [rows] → each row's log Σ expOf(x) − x[id], 0 where the id is `ignore`. */
export function tokenLosses(dtype: FloatDType, style: KernelStyle): TunedKernel {
  const walk = walkOf(style, LANES);
  const { element, declaration } = scalars("x", dtype);
  return {
    key: `tokenLosses:${style}:${dtype}`,
    arrays: [
      { name: "x", element },
      { name: "ids", element: "f32" },
    ],
    result: "f32",
    integers: INTEGERS,
    floats: [],
    workgroup: walk.workgroup,
    declarations: declaration + walk.declarations,
    body: `${rowOf(walk)}
  if (${walk.stores}) { result[params.outAt + row] = select(log_total - (x_at(start + id) - largest), 0.0, id == params.ignore); }`,
    groups: walk.groups,
  };
}

/** x [rows] (losses), ids [rows] → Σ x / the number of rows that count. */
export function meanLoss(style: KernelStyle): TunedKernel {
  const walk = walkOf(style, LANES);
  return {
    key: `meanLoss:${style}`,
    arrays: [
      { name: "x", element: "f32" },
      { name: "ids", element: "f32" },
    ],
    result: "f32",
    integers: INTEGERS,
    floats: [],
    workgroup: walk.workgroup,
    declarations: walk.declarations,
    body: `${countedBy(walk)}
  var s = 0.0;
  ${walk.each("s += x[params.xAt + i];", "i", "params.rows")}
  let total = sum_of(s, lane);
  if (lane == 0) { result[params.outAt] = total / counted; }`,
    groups: () => [1, 1, 1],
  };
}

/** x [rows, n], ids [rows], g [] → (softmax(x) − one-hot ids)·g / the number of rows that count, 0 in the others. */
export function crossEntropyGradient(dtype: FloatDType, style: KernelStyle): TunedKernel {
  const walk = walkOf(style, LANES);
  const { element, declaration } = scalars("x", dtype);
  return {
    key: `crossEntropyGradient:${style}:${dtype}`,
    arrays: [
      { name: "x", element },
      { name: "ids", element: "f32" },
      { name: "g", element: "f32" },
    ],
    result: "f32",
    integers: INTEGERS,
    floats: [],
    workgroup: walk.workgroup,
    declarations: declaration + walk.declarations,
    body: `${rowOf(walk)}${countedBy(walk)}
  let share = g[params.gAt] / counted;
  ${walk.each(`let off = expOf(x_at(start + j) - largest - log_total) - f32(j == id);
    result[params.outAt + row * params.n + j] = select(off * share, 0.0, id == params.ignore);`)}`,
    groups: walk.groups,
  };
}
