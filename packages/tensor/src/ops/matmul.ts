import { resultDType } from "../dtype.ts";
import { DTypeError, ShapeError } from "../errors.ts";
import { broadcastShapes, expandLayout } from "../layout.ts";
import { execute } from "../op.ts";
import type { Tensor } from "../tensor.ts";
import { reshape, transpose } from "./movement.ts";
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
  // one large product instead of many small ones, and a weight gradient without a batch axis
  if (b.shape.length === 2 && a.shape.length > 2)
    return reshape(matmul(reshape(a, [-1, k].with(0, rowsOf(a))), b), [...a.shape.slice(0, -1), n]);
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

const rowsOf = ({ shape }: Tensor): number => shape.slice(0, -1).reduce((rows, d) => rows * d, 1);

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
