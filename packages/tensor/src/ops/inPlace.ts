import type { View } from "../backend.ts";
import { expandLayout, isContiguous } from "../layout.ts";
import type { Operand } from "../op.ts";
import type { Tensor } from "../tensor.ts";

/** target = expression(a, b, c) in place and in one pass; operands are numbers or broadcast to target, which may be among them. */
export function writeExpression(target: Tensor, expression: string, ...operands: readonly Operand[]): void {
  const views = operands.map((x) => {
    if (typeof x === "number") return x;
    const { buffer, layout } = x.view("writeExpression");
    return { buffer, layout: expandLayout(layout, target.shape) };
  });
  target.backend.pointwise(expression, target.view("writeExpression"), views);
  target.written();
}

/** Views for a backend's kernel that works in place, or null where it cannot take them: none is strided or split, no two share a buffer. */
export function viewsInPlace(op: string, tensors: readonly Tensor[]): View[] | null {
  const views = tensors.map((x) => x.view(op));
  const buffers = views.map(({ buffer }) => buffer);
  const fits = views.every(({ layout }) => isContiguous(layout)) && new Set(buffers).size === buffers.length;
  return fits && (tensors[0]!.backend.fuses?.(op, buffers) ?? true) ? views : null;
}
