import { isDeepStrictEqual } from "node:util";
import { compareBufferSources } from "typed-array-utils";
import { expect } from "vitest";

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
