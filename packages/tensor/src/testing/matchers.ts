/** How far a value may be off: any one bound that holds is enough; none given means equal (−0 counts as 0, NaN as NaN). */
export interface Tolerance {
  /** Units in the last place of float32. */
  readonly ulps?: number;
  /** Factor of the expected magnitude. */
  readonly relative?: number;
  readonly absolute?: number;
}

/** Throws, naming the first element that is off, unless `actual` has the elements of `expected` within the tolerance. */
export function expectClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  { ulps = 0, relative = 0, absolute = 0 }: Tolerance = {},
): void {
  if (actual.length !== expected.length)
    throw new Error(`expectClose: lengths must agree, got ${actual.length} and ${expected.length}`);
  for (let i = 0; i < expected.length; i++) {
    const [x, y] = [actual[i]!, expected[i]!];
    if (x === y || (x !== x && y !== y)) continue;
    const off = Math.abs(x - y);
    if (Number.isFinite(off) && (off <= relative * Math.abs(y) || off <= absolute)) continue;
    if (ulpsBetween(x, y) <= ulps) continue;
    throw new Error(
      `expectClose: element ${i} of ${expected.length} must be ${y}, got ${x} (off by ${off}, ${ulpsBetween(x, y)} ulps)`,
    );
  }
}

const f32 = new Float32Array(1);
const i32 = new Int32Array(f32.buffer);

/** How many float32 numbers lie between two numbers, once rounded. */
export function ulpsBetween(x: number, y: number): number {
  return Math.abs(orderOf(x) - orderOf(y));
}

/** The position of a number among all float32 numbers, ascending. */
function orderOf(x: number): number {
  f32[0] = x;
  const bits = i32[0]!;
  return bits < 0 ? -2147483648 - bits : bits;
}

/** True when two host arrays hold the same bytes. */
export function sameBytes(x: ArrayBufferView, y: ArrayBufferView): boolean {
  const [a, b] = [x, y].map((view) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength));
  return a!.length === b!.length && a!.every((byte, i) => byte === b![i]);
}
