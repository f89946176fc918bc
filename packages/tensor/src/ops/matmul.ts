import { resultDType } from "../dtype.ts";
import { DTypeError, ShapeError } from "../errors.ts";
import {
  type Layout,
  broadcastShapes,
  contiguousLayout,
  expandLayout,
  isContiguous,
  reshapeLayout,
  sizeOf,
} from "../layout.ts";
import { execute } from "../op.ts";
import type { Tensor } from "../tensor.ts";
import { contiguous, transpose } from "./movement.ts";
import { add } from "./pointwise.ts";

/**
 * a [..., m, k] · b [..., k, n] → [..., m, n]; batch axes broadcast. Strided inputs are read in place;
 * bfloat16 and float16 are widened while they are read. Throws ShapeError when the inner dimensions differ.
 */
export function matmul(a: Tensor, b: Tensor): Tensor {
  if (a.shape.length < 2 || b.shape.length < 2)
    throw new ShapeError("matmul", "both need at least two axes", a.shape, b.shape);
  const [m, k] = a.shape.slice(-2) as [number, number];
  const [k2, n] = b.shape.slice(-2) as [number, number];
  if (k !== k2) throw new ShapeError("matmul", `inner dimensions must agree (${k} ≠ ${k2})`, a.shape, b.shape);
  if (a.dtype === "int32" || b.dtype === "int32")
    throw new DTypeError("matmul", "both must be floats", a.dtype, b.dtype);
  if (b.shape.length === 2 && a.shape.length > 2) return ofAllRows(a, b);
  const batch = broadcastShapes("matmul", a.shape.slice(0, -2), b.shape.slice(0, -2));
  const shape = [...batch, m, n];
  return execute("matmul", [a, b], null, { shape, dtype: resultDType([a.dtype, b.dtype]) }, (backend, out) => {
    const { buffer: aBuffer, layout: aLayout } = a.view("matmul");
    const { buffer: bBuffer, layout: bLayout } = b.view("matmul");
    backend.matmul(
      out,
      { buffer: aBuffer, layout: expandLayout(aLayout, [...batch, m, k]) },
      { buffer: bBuffer, layout: expandLayout(bLayout, [...batch, k, n]) },
    );
  });
}

/** One large product of a [..., m, k] instead of many small ones. */
function ofAllRows(a: Tensor, b: Tensor): Tensor {
  const rows = asRows(a.layout);
  if (!rows) return ofAllRows(contiguous(a), b);
  const result = { shape: [...a.shape.slice(0, -1), b.shape[1]!], dtype: resultDType([a.dtype, b.dtype]) };
  return execute("matmul", [a, b], null, result, (backend, out) =>
    backend.matmul(
      { buffer: out.buffer, layout: asRows(out.layout)! },
      { buffer: a.view("matmul").buffer, layout: rows },
      b.view("matmul"),
    ),
  );
}

/** [..., k] as [rows, k], or null where strides do not let it. */
const asRows = (layout: Layout): Layout | null =>
  reshapeLayout(layout, [sizeOf(layout.shape.slice(0, -1)), layout.shape.at(-1)!]);

/**
 * sum += a·b in place, for a sum [..., m, n] that nobody else sees, a [..., m, k] and b [k, n]; false, and nothing done, where the
 * backend does not add up products or strides do not let it. Records nothing.
 */
export function addMatmul(sum: Tensor, a: Tensor, b: Tensor): boolean {
  const { buffer, layout } = sum.view("addMatmul");
  const rows = asRows(a.layout);
  if (b.shape.length !== 2 || !rows || sum.shared || !isContiguous(layout) || sum.dtype !== "float32") return false;
  const out = { buffer, layout: contiguousLayout([rows.shape[0]!, b.shape[1]!], layout.offset) };
  const [left, right] = [{ buffer: a.view("addMatmul").buffer, layout: rows }, b.view("addMatmul")];
  return sum.backend.updates?.addMatmul?.(out, left, right, null) ?? false;
}

/** x [..., in] · wᵀ, w [out, in] → [..., out]: PyTorch's linear without bias. */
export function matmulT(x: Tensor, w: Tensor): Tensor {
  const [k, k2] = [x.shape.at(-1), w.shape.at(-1)];
  if (k !== k2) throw new ShapeError("matmulT", `inner dimensions must agree (${k} ≠ ${k2})`, x.shape, w.shape);
  return matmul(x, transpose(w));
}

/** x [..., in] · wᵀ + b, w [out, in], b [out] → [..., out]. */
export function linear(x: Tensor, w: Tensor, b?: Tensor | null): Tensor {
  const y = matmulT(x, w);
  return b ? add(y, b) : y;
}
