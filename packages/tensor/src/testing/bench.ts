import fc from "fast-check";
import type { Backend } from "../backend.ts";
import type { TypedArray } from "../dtype.ts";
import { sameShape } from "../layout.ts";
import type { PointwiseName } from "../ops/pointwise.ts";
import { Scope } from "../scope.ts";
import type { Tensor } from "../tensor.ts";
import { type Tolerance, expectClose, sameBytes } from "./matchers.ts";

/** What a backend may be off by, beside where the suite says that arithmetic is exact. */
export interface Tolerances {
  /** One pointwise op. */
  readonly pointwise: Tolerance;
  /** One that subtracts almost equal numbers, or takes the exponential of a rounded product, in the tail of GELU above all. */
  readonly cancelling: Tolerance;
  /** Sums and products of sums, relative to Σ |terms|. */
  readonly sums: number;
  /** Norms, softmax, attention, losses, against the composite in float64. */
  readonly fused: Tolerance;
  /** Which pointwise ops of int32 are exact: all, if absent, or those that take whole numbers to whole numbers of 24 bits. */
  readonly int32?: "whole";
  /** Set where numbers below 2⁻¹²⁶ count as 0. */
  readonly denormals?: "flushed";
  /** Pointwise ops that are further off than `pointwise` and `cancelling`. */
  readonly ops?: { readonly [N in PointwiseName]?: Tolerance };
}

/** The backend under test beside the reference backend. */
export interface Bench {
  readonly tested: Backend;
  readonly reference: Backend;
  readonly tolerances: Tolerances;
}

/** Draws of a property, where fast-check is not told how many. */
const RUNS = 60;

/** Checks a property of drawn values; the seed is printed when it fails. */
export async function always<T>(
  arbitrary: fc.Arbitrary<T>,
  property: (value: T) => Promise<void>,
  numRuns = fc.readConfigureGlobal()?.numRuns ?? RUNS,
): Promise<void> {
  await fc.assert(fc.asyncProperty(arbitrary, property), { numRuns });
}

/** The elements of what `run` makes, in row-major order. */
export async function elements(run: () => Tensor): Promise<TypedArray> {
  using _scope = new Scope();
  return run().data();
}

/** `run` gives the same shape and dtype on both backends, and the same elements within `tolerance`. */
export async function agree(
  { tested, reference }: Bench,
  run: (backend: Backend) => Tensor,
  tolerance: Tolerance = {},
): Promise<void> {
  using _scope = new Scope();
  const [actual, expected] = [run(tested), run(reference)];
  if (!sameShape(actual.shape, expected.shape) || actual.dtype !== expected.dtype)
    throw new Error(`agree: shape and dtype must agree, got ${actual.toString()} and ${expected.toString()}`);
  expectClose(await actual.data(), await expected.data(), tolerance);
}

/** `one` and `other` give the same bytes on the backend under test. */
export async function identical(one: () => Tensor, other: () => Tensor): Promise<void> {
  const [x, y] = [await elements(one), await elements(other)];
  if (!sameBytes(x, y)) throw new Error(`identical: bytes must agree, got [${x.join(", ")}] and [${y.join(", ")}]`);
}
