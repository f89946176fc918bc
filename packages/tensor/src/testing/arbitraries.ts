import fc from "fast-check";
import type { Backend } from "../backend.ts";
import { tensor } from "../create.ts";
import { type DType, isStorageDType } from "../dtype.ts";
import { type Shape, formatShape } from "../errors.ts";
import { sizeOf } from "../layout.ts";
import { cast, expand, permute, slice } from "../ops/movement.ts";
import type { Tensor } from "../tensor.ts";

/** A tensor that can be made, with the same elements and the same strides, on any backend. */
export interface Drawn {
  readonly shape: Shape;
  readonly dtype: DType;
  /** The tensor on a backend; `dtype` overrides the drawn one. */
  on(backend: Backend, dtype?: DType): Tensor;
}

/** Sizes 0 and 1 are drawn often. */
export const sizes: fc.Arbitrary<number> = fc.oneof(
  { weight: 1, arbitrary: fc.constant(0) },
  { weight: 3, arbitrary: fc.constant(1) },
  { weight: 12, arbitrary: fc.integer({ min: 2, max: 5 }) },
);
export const positiveSizes: fc.Arbitrary<number> = sizes.map((d) => Math.max(1, d));

export const shapes = (minRank: number, maxRank: number, size = sizes): fc.Arbitrary<Shape> =>
  fc.array(size, { minLength: minRank, maxLength: maxRank });

/** Numbers that float32 holds, of ordinary size. */
export const ordinary: fc.Arbitrary<number> = fc
  .oneof(fc.double({ min: -4, max: 4, noNaN: true }), fc.integer({ min: -4, max: 4 }))
  .map((v) => (Math.abs(v) < 2 ** -20 ? 0 : Math.fround(v)));

/** Ordinary numbers, with NaN, infinities, both zeros, and numbers near the ends of float32 among them. */
export const floats: fc.Arbitrary<number> = fc.oneof(
  { weight: 8, arbitrary: ordinary },
  {
    weight: 1,
    arbitrary: fc.constantFrom(NaN, Infinity, -Infinity, 0, -0, ...[3e38, -3e38, 1e-38, 88, 104].map(Math.fround)),
  },
);

/** Ordinary numbers with NaN and infinities among them. */
export const withSpecials: fc.Arbitrary<number> = fc.oneof(
  { weight: 12, arbitrary: ordinary },
  { weight: 1, arbitrary: fc.constantFrom(NaN, Infinity, -Infinity) },
);

export const integers: fc.Arbitrary<number> = fc.integer({ min: -40, max: 40 });

/** How one axis of a tensor lies in a larger one; `stretched` axes are broadcast from size 1. */
interface Axis {
  readonly before: number;
  readonly after: number;
  readonly step: number;
  readonly stretched: boolean;
}
const PLAIN: Axis = { before: 0, after: 0, step: 1, stretched: false };

const anyAxis: fc.Arbitrary<Axis> = fc.record({
  before: fc.nat(2),
  after: fc.nat(2),
  step: fc.integer({ min: 1, max: 3 }),
  stretched: fc.boolean(),
});

/** A tensor of the given shape: contiguous, transposed, or cut with steps out of a larger, transposed, broadcast one; each as often. */
export function drawn(
  shape: Shape,
  values: fc.Arbitrary<number> = floats,
  dtype: DType = "float32",
): fc.Arbitrary<Drawn> {
  const plainAxes = fc.constant(shape.map(() => PLAIN));
  const anyAxes = fc.tuple(...shape.map(() => anyAxis));
  const straight = fc.constant(shape.map((_, axis) => axis));
  const turned = fc.shuffledSubarray(
    shape.map((_, axis) => axis),
    { minLength: shape.length, maxLength: shape.length },
  );
  return fc
    .oneof(fc.tuple(plainAxes, straight), fc.tuple(plainAxes, turned), fc.tuple(anyAxes, turned))
    .chain(([axes, order]) => {
      const whole = shape.map((size, i) => wholeSize(size, axes[i]!));
      const stored = order.map((axis) => whole[axis]!);
      const length = sizeOf(stored);
      return fc
        .array(values, { minLength: length, maxLength: length })
        .map((data): Drawn => lying(shape, dtype, data, stored, axes, order));
    });
}

const wholeSize = (size: number, { before, after, step, stretched }: Axis): number =>
  stretched ? 1 : before + Math.max(0, size - 1) * step + Math.min(1, size) + after;

function lying(
  shape: Shape,
  dtype: DType,
  data: readonly number[],
  stored: Shape,
  axes: readonly Axis[],
  order: readonly number[],
): Drawn {
  return {
    shape,
    dtype,
    on(backend, as = dtype) {
      const whole = tensor(data, stored, isStorageDType(dtype) || isStorageDType(as) ? "float32" : as, backend);
      const converted = cast(isStorageDType(dtype) ? cast(whole, dtype) : whole, as);
      const turned = permute(
        converted,
        shape.map((_, axis) => order.indexOf(axis)),
      );
      const cut = axes.reduce((x, { before, step, stretched }, axis) => {
        const size = shape[axis]!;
        return stretched ? x : slice(x, axis, before, before + Math.max(0, size - 1) * step + Math.min(1, size), step);
      }, turned);
      return expand(cut, shape);
    },
    [fc.toStringMethod]: () =>
      `${dtype}${formatShape(shape)} of ${formatShape(stored)} ${JSON.stringify({ axes, order })} [${data.map(String).join(", ")}]`,
  } as Drawn;
}

/** A drawn tensor of a drawn shape. */
export const drawnOf = (
  shape: fc.Arbitrary<Shape>,
  values?: fc.Arbitrary<number>,
  dtype?: DType,
): fc.Arbitrary<Drawn> => shape.chain((s) => drawn(s, values, dtype));

/** A shape that broadcasts to `shape`: axes set to 1, leading ones left out. */
export const broadcastable = (shape: Shape): fc.Arbitrary<Shape> =>
  fc
    .tuple(fc.nat(shape.length), fc.array(fc.boolean(), { minLength: shape.length, maxLength: shape.length }))
    .map(([dropped, ones]) => shape.map((d, axis) => (ones[axis] ? 1 : d)).slice(dropped));
