import { type Tensor, cast, cat, permute, reshape, slice, sum, zeros } from "@neolog/tensor";
import type { Vjp } from "./rule.ts";

type Movement = "cast" | "contiguous" | "reshape" | "permute" | "expand" | "slice" | "cat";

export const MOVEMENT_VJP: { readonly [N in Movement]: Vjp<N> } = {
  cast: ({ inputs }, g) => [cast(g, gradientDType(inputs[0] as Tensor))],
  contiguous: (_, g) => [g],
  reshape: ({ attrs: { shape } }, g) => [reshape(g, shape)],
  permute: ({ attrs: { axes } }, g) => [
    permute(
      g,
      axes.map((_, axis) => axes.indexOf(axis)),
    ),
  ],
  expand: ({ attrs: { shape } }, g) => [sumTo(g, shape)],
  slice: ({ inputs, attrs: { axis, start, size, step } }, g) => {
    const x = inputs[0] as Tensor;
    const n = x.shape[axis]!;
    const blank = (length: number): Tensor => zeros(x.shape.with(axis, length), g.dtype, g.backend);
    const after = n - start - (size - 1) * step - 1;
    if (size === 0) return [blank(n)];
    const spread = step === 1 ? g : spreadOut(g, axis, step);
    return [cat([blank(start), spread, blank(after)], axis)];
  },
  cat: ({ inputs, attrs: { axis } }, g) => {
    let start = 0;
    return inputs.map((x) => {
      const from = start;
      start += (x as Tensor).shape[axis]!;
      return slice(g, axis, from, start);
    });
  },
};

/** Elements of `axis` with step − 1 zeros between them. */
function spreadOut(g: Tensor, axis: number, step: number): Tensor {
  const split = g.shape.toSpliced(axis + 1, 0, 1);
  const gaps = zeros(split.with(axis + 1, step - 1), g.dtype, g.backend);
  const filled = reshape(cat([reshape(g, split), gaps], axis + 1), g.shape.with(axis, g.shape[axis]! * step));
  return slice(filled, axis, 0, (g.shape[axis]! - 1) * step + 1);
}

/** A stored bfloat16 or float16 leaf collects its gradient in float32. */
const gradientDType = ({ dtype }: Tensor) => (dtype === "float64" ? dtype : "float32");

/** Undoes broadcasting: the sum of g over the axes along which `shape` was stretched. */
export function sumTo(g: Tensor, shape: readonly number[]): Tensor {
  const lead = g.shape.length - shape.length;
  const axes = g.shape.flatMap((d, i) => (i < lead || (shape[i - lead] === 1 && d !== 1) ? [i] : []));
  return axes.length === 0 ? g : reshape(sum(g, axes), shape);
}
