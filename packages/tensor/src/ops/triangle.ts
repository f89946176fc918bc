import { arange } from "../create.ts";
import type { Tensor } from "../tensor.ts";
import { unsqueeze } from "./movement.ts";
import { add, greaterEqual, where } from "./pointwise.ts";

/** x on and below the diagonal of its last two axes, else 0; `diagonal` moves it to the right. */
export const tril = (x: Tensor, diagonal = 0): Tensor => where(onOrBelow(x, diagonal), x, 0);

/** x on and above the diagonal of its last two axes, else 0. */
export const triu = (x: Tensor, diagonal = 0): Tensor => where(onOrBelow(x, diagonal - 1), 0, x);

/** int32 [rows, columns]: 1 where column ≤ row + diagonal. */
function onOrBelow({ shape, backend }: Tensor, diagonal: number): Tensor {
  const rows = arange(shape.at(-2)!, "int32", backend);
  const columns = arange(shape.at(-1)!, "int32", backend);
  return greaterEqual(add(unsqueeze(rows, 1), diagonal), columns);
}
