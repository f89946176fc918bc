import { arange, intTensor } from "../create.ts";
import { resultDType } from "../dtype.ts";
import { IndexError, type Shape, ShapeError } from "../errors.ts";
import { contiguousLayout, resolveAxis, sameShape, sliceLayout } from "../layout.ts";
import { execute, fused, kernelFor, withContiguous } from "../op.ts";
import type { Tensor } from "../tensor.ts";
import { cat, contiguous, reshape, slice, unsqueeze } from "./movement.ts";
import { add, greaterEqual, mul, where } from "./pointwise.ts";

/** Row numbers from the host, which are checked, or an int32 tensor, which is trusted. Negative: no row. */
export type RowIds = Int32Array | Tensor;

function onDevice(op: string, ids: RowIds, rows: number, like: Tensor): Tensor {
  if (!(ids instanceof Int32Array)) return contiguous(ids);
  const outside = ids.find((id) => id >= rows);
  if (outside !== undefined) throw new IndexError(op, `ids must be below ${rows}`, outside);
  return intTensor(ids, [ids.length], like.backend);
}

/** table [V, ...], ids [n] → [n, ...]: row ids[i] of the table; a negative id gives zeros. The gradient adds up per row. */
export function takeRows(table: Tensor, ids: RowIds): Tensor {
  const [rows, ...row] = table.shape;
  if (rows === undefined) throw new ShapeError("takeRows", "table needs at least one axis", table.shape);
  const index = onDevice("takeRows", ids, rows, table);
  const result = { shape: [index.size, ...row], dtype: resultDType([table.dtype]) };
  return execute("takeRows", [table], { ids: index }, result, (backend, out) => {
    withContiguous("takeRows", [table], ([view]) => backend.takeRows(out, view!, index.view("takeRows")));
  });
}

/** The sum of rows[i] over all i with ids[i] = r, for r < count: rows [n, ...], ids [n] → [count, ...]. Negative ids are left out. */
export function scatterRows(rows: Tensor, ids: RowIds, count: number): Tensor {
  const [n, ...row] = rows.shape;
  const index = onDevice("scatterRows", ids, count, rows);
  if (n !== index.size)
    throw new ShapeError(
      "scatterRows",
      `as many ids as rows are needed (${index.size} ≠ ${n})`,
      rows.shape,
      index.shape,
    );
  return execute(
    "scatterRows",
    [rows],
    { ids: index },
    { shape: [count, ...row], dtype: rows.dtype },
    (backend, out) => {
      withContiguous("scatterRows", [rows], ([view]) => {
        const kernel = kernelFor("scatterRows", [rows, index], [count, ...row]);
        if (kernel) return kernel(out, [view!], { ids: index });
        backend.fill(out, 0);
        backend.addRows(out, view!, index.view("scatterRows"));
      });
    },
  );
}

/** x [n, D] with row i replaced by rows[slots[i]] wherever slots[i] ≥ 0; rows [k, D]. */
export function overrideRows(x: Tensor, rows: Tensor, slots: RowIds): Tensor {
  const index = onDevice("overrideRows", slots, rows.shape[0]!, x);
  if (x.shape.length !== 2 || rows.shape.length !== 2 || x.shape[1] !== rows.shape[1] || x.shape[0] !== index.size) {
    throw new ShapeError(
      "overrideRows",
      "x [n, D], rows [k, D] and slots [n] must agree",
      x.shape,
      rows.shape,
      index.shape,
    );
  }
  return where(unsqueeze(greaterEqual(index, 0), 1), takeRows(rows, index), x);
}

/**
 * overrideRows(takeRows(table, ids), rows, slots) in one kernel where the backend has it: table [V, D], rows [k, D], ids and slots [n]
 * → [n, D]. The gradients add up per row.
 */
export function overriddenRows(table: Tensor, ids: RowIds, rows: Tensor, slots: RowIds): Tensor {
  const [V, D] = table.shape;
  if (V === undefined || table.shape.length !== 2 || !sameShape(rows.shape, [rows.shape[0]!, D!]))
    throw new ShapeError("overriddenRows", "table [V, D] and rows [k, D] are needed", table.shape, rows.shape);
  const index = onDevice("overriddenRows", ids, V, table);
  const places = onDevice("overriddenRows", slots, rows.shape[0]!, table);
  if (index.size !== places.size)
    throw new ShapeError("overriddenRows", "as many slots as ids are needed", index.shape, places.shape);
  return fused("overriddenRows", [table, rows, index, places], null, [index.size, D!], () =>
    overrideRows(takeRows(table, index), rows, places),
  );
}

/** x [..., V] with column columns[j] replaced by column j of values [..., k]; columns are distinct. */
export function overrideColumns(x: Tensor, values: Tensor, columns: Int32Array): Tensor {
  const n = x.shape.at(-1)!;
  if (values.shape.at(-1) !== columns.length || values.size * n !== x.size * columns.length) {
    throw new ShapeError(
      "overrideColumns",
      `values must hold ${columns.length} columns for each row of x`,
      x.shape,
      values.shape,
    );
  }
  const outside = columns.find((c) => c < 0 || c >= n);
  if (outside !== undefined) throw new IndexError("overrideColumns", `columns must be in [0, ${n})`, outside);
  const last = x.shape.length - 1;
  return execute("overrideColumns", [x, values], { columns }, x, (backend, out) => {
    const kernel = columns.length > 0 ? kernelFor("overrideColumns", [x, values], x.shape) : undefined;
    if (kernel) return withContiguous("overrideColumns", [x, values], (views) => kernel(out, views, { columns }));
    const view = values.view("overrideColumns");
    backend.copy(out, x.view("overrideColumns"));
    columns.forEach((column, j) => {
      const to = { buffer: out.buffer, layout: sliceLayout(out.layout, last, column, 1) };
      backend.copy(to, { buffer: view.buffer, layout: sliceLayout(view.layout, last, j, 1) });
    });
  });
}

/** x [..., V] → [..., k]: the columns named, in that order. */
export function takeColumns(x: Tensor, columns: Int32Array): Tensor {
  return cat(
    Array.from(columns, (column) => slice(x, -1, column, column + 1)),
    -1,
  );
}

/** Picks along `axis`: for axis 1 of three, out[i, j, k] = x[i, index[i, j, k], k]. All other sizes of index are at most those of x. */
export function gather(x: Tensor, axis: number, index: Tensor): Tensor {
  return reshape(takeRows(reshape(x, [x.size, 1]), flatPositions("gather", x.shape, axis, index)), index.shape);
}

/** x plus src added at the positions that `index` names along `axis`: the transpose of `gather`. */
export function scatterAdd(x: Tensor, axis: number, index: Tensor, src: Tensor): Tensor {
  const positions = flatPositions("scatterAdd", x.shape, axis, index);
  return add(x, reshape(scatterRows(reshape(src, [src.size, 1]), positions, x.size), x.shape));
}

/** Where, in row-major x, each element of `index` points; int32 [index.size]. */
function flatPositions(op: string, shape: Shape, axis: number, index: Tensor): Tensor {
  const along = resolveAxis(op, axis, shape);
  if (index.shape.length !== shape.length || index.shape.some((d, i) => i !== along && d > shape[i]!)) {
    throw new ShapeError(op, `index must have x's rank and no larger sizes beside axis ${along}`, shape, index.shape);
  }
  const { strides } = contiguousLayout(shape);
  let positions = mul(index, strides[along]!);
  index.shape.forEach((d, i) => {
    if (i === along) return;
    const ones = index.shape.map((_, j) => (j === i ? d : 1));
    positions = add(positions, reshape(mul(arange(d, "int32", index.backend), strides[i]!), ones));
  });
  return reshape(positions, [index.size]);
}
