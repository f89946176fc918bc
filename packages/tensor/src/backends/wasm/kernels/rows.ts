import type { View } from "../../../backend.ts";
import type { Engine } from "../engine.ts";

/** out[i] = table[ids[i]]; true when done, false where no SIMD kernel fits. */
export function takeRows(_engine: Engine, _out: View, _table: View, _ids: View): boolean {
  return false;
}

/** out[ids[i]] += rows[i], in ascending i; true when done, false where no SIMD kernel fits. */
export function addRows(_engine: Engine, _out: View, _rows: View, _ids: View): boolean {
  return false;
}
