import { type OpAttrs, Scope, type Tensor, assign, memoryOrder, permute, slice, zeros } from "@neolog/tensor";

type Range = OpAttrs["slice"];

/**
 * Gradients of tensors that were cut into slices, q, k and v of one product say: each slice's is written to its place in one buffer,
 * where sums of as many buffers, zero elsewhere, would give the same.
 */
export class SliceGradients {
  /** What is written so far of a gradient that has come from slices alone. */
  readonly #ranges = new Map<Tensor, Range[]>();

  /** Passes g of y on to what y is a slice of; false where y is none, or its place is taken. */
  fill(y: Tensor, g: Tensor, grads: Map<Tensor, Tensor>): boolean {
    const { op, inputs, attrs } = y.source!;
    if (op !== "slice") return false;
    const [x, range] = [inputs[0] as Tensor, attrs as Range];
    if (range.size === 0) return false;
    using scope = new Scope();
    const known = grads.get(x);
    const before = known ? this.#ranges.get(known) : [];
    if (!before || before.some((other) => meet(other, range))) return false;
    const gx = known ?? scope.keep(zerosLying(x, g));
    const { axis, start, size, step } = range;
    assign(slice(gx, axis, start, start + (size - 1) * step + 1, step), g);
    grads.set(x, gx);
    this.#ranges.set(gx, [...before, range]);
    return true;
  }
}

/** Zeros of x's shape that lie as x does, of g's dtype. */
function zerosLying({ shape, layout }: Tensor, { dtype, backend }: Tensor): Tensor {
  const axes = memoryOrder(layout);
  if (!axes) return zeros(shape, dtype, backend);
  const lying = zeros(
    axes.map((axis) => shape[axis]!),
    dtype,
    backend,
  );
  return permute(
    lying,
    axes.map((_, axis) => axes.indexOf(axis)),
  );
}

/** Whether two slices may have an element in common. */
const meet = (a: Range, b: Range): boolean => a.axis !== b.axis || (a.start <= lastOf(b) && b.start <= lastOf(a));

const lastOf = ({ start, size, step }: Range): number => start + (size - 1) * step;
