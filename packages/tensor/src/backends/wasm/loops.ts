import { at, mul, op, sub } from "./asm/expression.ts";
import type { FunctionBuilder, Local } from "./asm/function.ts";

/** Where an operand of nested loops lies: an address that moves, and its strides over the loops, in bytes. */
export interface Place {
  readonly start: Local;
  readonly strides: readonly Local[];
}

/** Loops over [from, to) of all index tuples below `sizes`, in row-major order; `body` finds the places moved and gets the indices. */
export function forEachIndex(
  f: FunctionBuilder,
  places: readonly Place[],
  sizes: readonly Local[],
  [from, to]: readonly [Local, Local],
  body: (index: readonly Local[]) => void,
): void {
  const rest = f.local("i32", from);
  const index = sizes.map(() => f.local("i32"));
  for (let axis = sizes.length - 1; axis >= 0; axis--) {
    f.set(index[axis]!, axis > 0 ? op("i32.rem_u", rest, sizes[axis]!) : rest);
    if (axis > 0) f.set(rest, op("i32.div_u", rest, sizes[axis]!));
    for (const { start, strides } of places) f.set(start, at(start, index[axis]!, strides[axis]!));
  }
  const i = f.local("i32");
  f.for(i, from, to, 1, () => {
    body(index);
    advance(f, places, sizes, index, sizes.length - 1);
  });
}

/** Moves one on in `axis`; at its end back to its begin, and one on in the axis before it. */
function advance(
  f: FunctionBuilder,
  places: readonly Place[],
  sizes: readonly Local[],
  index: readonly Local[],
  axis: number,
): void {
  for (const { start, strides } of places) f.advance(start, strides[axis]!);
  f.advance(index[axis]!, 1);
  if (axis === 0) return;
  f.if(op("i32.eq", index[axis]!, sizes[axis]!), () => {
    f.set(index[axis]!, 0);
    for (const { start, strides } of places) f.set(start, sub(start, mul(strides[axis]!, sizes[axis]!)));
    advance(f, places, sizes, index, axis - 1);
  });
}
