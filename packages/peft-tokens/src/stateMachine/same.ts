import { isDeepStrictEqual } from "node:util";
import { compareBufferSources } from "typed-array-utils";
import { expect } from "vitest";

/** max |a − b| ≤ τ·max(1, |b|), by default with the τ of float32 that the specification has. */
export function near(actual: Float32Array, expected: Float32Array, what: string, tau = 1e-5): void {
  const bound = tau * expected.reduce((most, x) => Math.max(most, Math.abs(x)), 1);
  const isNear = actual.length === expected.length && expected.every((x, i) => Math.abs(actual[i]! - x) <= bound);
  if (!isNear) expect(actual, `${what}, to ${bound}`).toEqual(expected);
}

/** Throws with the difference unless two values are the same, numbers in every bit. */
export function same(actual: unknown, expected: unknown, what: string): void {
  const equal =
    actual instanceof Float32Array && expected instanceof Float32Array
      ? compareBufferSources(actual as Float32Array<ArrayBuffer>, expected as Float32Array<ArrayBuffer>)
      : isDeepStrictEqual(actual, expected);
  if (equal) return;
  expect(actual, what).toEqual(expected);
  throw new Error(`${what}: must be the same in every bit, got a zero of another sign or a NaN of other bits`);
}
