import { expect } from "vitest";
import type { View } from "../../../backend.ts";
import { intTensor, tensor } from "../../../create.ts";
import type { Shape } from "../../../errors.ts";
import { contiguousLayout, sizeOf } from "../../../layout.ts";
import { normalAt } from "../../../random.ts";
import type { Tensor } from "../../../tensor.ts";
import { elements } from "../../../testing/bench.ts";
import { ReferenceBackend } from "../../reference/backend.ts";
import type { Engine } from "../engine.ts";

/** q [B, H, T, D], k [B, K, S, D], v [B, K, S, E], a mask that broadcasts to [B, H, T, S]. */
export interface Case {
  readonly B: number;
  readonly H: number;
  readonly K: number;
  readonly T: number;
  readonly S: number;
  readonly D: number;
  readonly E: number;
  readonly softcap: number | null;
  readonly maskShape: Shape;
  readonly allows: (index: readonly number[]) => boolean;
}
/** What a tensor holds. */
export interface Given {
  readonly data: Float32Array | Int32Array;
  readonly shape: Shape;
}

/** Numbers drawn from a normal distribution. */
export const drawn = (shape: Shape, seed: number): Given => ({
  data: Float32Array.from({ length: sizeOf(shape) }, (_, i) => normalAt(seed, i)),
  shape,
});

function maskOf({ maskShape, allows }: Case): Given {
  const { strides } = contiguousLayout(maskShape);
  const indexOf = (i: number): number[] => strides.map((stride, axis) => Math.floor(i / stride) % maskShape[axis]!);
  // any number but 0 allows
  return {
    data: Int32Array.from({ length: sizeOf(maskShape) }, (_, i) => (allows(indexOf(i)) ? 1 + (i % 3) * -5 : 0)),
    shape: maskShape,
  };
}

/** q, k, v and the mask. */
export const inputsOf = (c: Case): Given[] => [
  drawn([c.B, c.H, c.T, c.D], 1),
  drawn([c.B, c.K, c.S, c.D], 2),
  drawn([c.B, c.K, c.S, c.E], 3),
  maskOf(c),
];

/** Calls `run` with views of the inputs, and of a result of this shape that holds NaN; nothing stays allocated. */
export function computed(
  { heap }: Engine,
  inputs: readonly Given[],
  shape: Shape,
  run: (out: View, inputs: readonly View[]) => void,
): Float32Array {
  const before = heap.live;
  const views = inputs.map((x) => {
    const buffer = heap.allocate(x.data instanceof Int32Array ? "int32" : "float32", x.data.length);
    buffer.data.set(x.data);
    return { buffer, layout: contiguousLayout(x.shape) };
  });
  const out = { buffer: heap.allocate("float32", sizeOf(shape)), layout: contiguousLayout(shape) };
  out.buffer.data.fill(NaN);
  run(out, views);
  const y = out.buffer.data.slice() as Float32Array;
  for (const { buffer } of [out, ...views]) heap.free(buffer);
  expect(heap.live).toBe(before);
  return y;
}

const reference = new ReferenceBackend();

/** What the composite gives in float64. */
export const expected = (
  inputs: readonly Given[],
  composite: (...inputs: Tensor[]) => Tensor,
): Promise<ArrayLike<number>> =>
  elements(() =>
    composite(
      ...inputs.map(({ data, shape }) =>
        data instanceof Int32Array
          ? intTensor(Array.from(data), shape, reference)
          : tensor(data, shape, "float64", reference),
      ),
    ),
  );

/** Small sizes, to be replaced. */
export const sizes = { B: 1, H: 2, K: 2, T: 8, S: 8, D: 8, E: 8, softcap: null };
/** The last query may attend to all keys, each one before it to one fewer. */
export const causal = (c: Omit<Case, "maskShape" | "allows">): Case => ({
  ...c,
  maskShape: [1, 1, c.T, c.S],
  allows: ([, , t, s]) => s! - (c.S - c.T) <= t!,
});
/** true in about three of four cases, by an arbitrary rule */
const often = (n: number): boolean => Math.imul(n + 7, 0x9e3779b1) >>> 30 !== 0;

/** Sizes around those of panels and tiles, and every kind of mask. */
export const CASES: { readonly [name: string]: Case } = {
  ...Object.fromEntries(
    [1, 3, 4, 7, 8, 9, 15, 16, 17, 63, 64, 65, 130].map((T) => [
      `causal, T = ${T}`,
      causal({ ...sizes, T, S: T, D: 16, E: 12 }),
    ]),
  ),
  ...Object.fromEntries(
    [1, 2, 3, 4, 5, 7, 8, 9, 31, 33, 63, 64, 65, 100].map((D) => [
      `width ${D}`,
      causal({ ...sizes, T: 19, S: 21, D, E: 101 - D }),
    ]),
  ),
  "one query, 300 keys": causal({ ...sizes, B: 2, T: 1, S: 300, D: 64, E: 64 }),
  "two queries, 300 keys": causal({ ...sizes, B: 2, T: 2, S: 300, D: 64, E: 64 }),
  "one query that may not attend everywhere": {
    ...sizes,
    H: 4,
    T: 1,
    S: 61,
    D: 33,
    E: 30,
    softcap: 2,
    maskShape: [1, 1, 61],
    allows: ([, , s]) => often(s!),
  },
  "one query that may attend nowhere": { ...sizes, T: 1, S: 25, maskShape: [25], allows: () => false },
  "one query of each of two heads that share keys": causal({ ...sizes, H: 4, K: 2, T: 1, S: 70, D: 32, E: 32 }),
  "one query of each of eight heads that share keys": causal({ ...sizes, H: 8, K: 1, T: 1, S: 300, D: 32, E: 32 }),
  "grouped queries": causal({ ...sizes, B: 2, H: 6, K: 2, T: 13, S: 40, D: 32, E: 24 }),
  "soft cap": causal({ ...sizes, T: 33, S: 35, D: 64, E: 64, softcap: 1.5 }),
  window: {
    ...sizes,
    T: 90,
    S: 90,
    D: 32,
    E: 32,
    maskShape: [1, 1, 90, 90],
    allows: ([, , t, s]) => s! <= t! && s! > t! - 20,
  },
  "padding of each sequence": {
    ...sizes,
    B: 3,
    T: 20,
    S: 20,
    maskShape: [3, 1, 1, 20],
    allows: ([b, , , s]) => s! >= 5 * b!,
  },
  "causal after padding, so that some may attend nowhere": {
    ...sizes,
    B: 2,
    T: 30,
    S: 30,
    maskShape: [2, 1, 30, 30],
    allows: ([b, , t, s]) => s! <= t! && s! >= 11 * b!,
  },
  "documents side by side": {
    ...sizes,
    T: 50,
    S: 50,
    maskShape: [50, 50],
    allows: ([t, s]) => s! <= t! && t! >> 4 === s! >> 4,
  },
  "holes everywhere": { ...sizes, T: 21, S: 37, maskShape: [21, 37], allows: ([t, s]) => often(37 * t! + s!) },
  "holes of each head, grouped": {
    ...sizes,
    B: 2,
    H: 6,
    T: 11,
    S: 13,
    maskShape: [2, 6, 11, 13],
    allows: (index) => often(index.reduce((n, i) => 17 * n + i, 0)),
  },
  "holes of each head, the same for all sequences": {
    ...sizes,
    B: 2,
    H: 4,
    T: 11,
    S: 13,
    maskShape: [4, 1, 13],
    allows: ([h, , s]) => often(13 * h! + s!),
  },
  "a mask of one element": { ...sizes, T: 5, S: 11, maskShape: [], allows: () => true },
  "queries that may attend everywhere or nowhere": {
    ...sizes,
    T: 13,
    S: 9,
    maskShape: [13, 1],
    allows: ([t]) => t! % 3 > 0,
  },
};
