import type { View } from "../../../backend.ts";
import type { Engine } from "../engine.ts";

/** out[i] = expression(inputs[0][i], …); true when done, false where no SIMD kernel fits. */
export function pointwise(
  _engine: Engine,
  _expression: string,
  _out: View,
  _inputs: readonly (View | number)[],
): boolean {
  return false;
}
