import { type Tensor, assign, cast, permute, reshape, slice, sum, zeros } from "@neolog/tensor";
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
  expand: (_, g) => [g],
  slice: ({ inputs, attrs: { axis, start, size, step } }, g) => {
    const gx = zeros((inputs[0] as Tensor).shape, g.dtype, g.backend);
    if (size > 0) assign(slice(gx, axis, start, start + (size - 1) * step + 1, step), g);
    return [gx];
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

/** A stored bfloat16 or float16 leaf collects its gradient in float32. */
const gradientDType = ({ dtype }: Tensor) => (dtype === "float64" ? dtype : "float32");

/** Undoes broadcasting: the sum of g over the axes along which `shape` was stretched. */
export function sumTo(g: Tensor, shape: readonly number[]): Tensor {
  const lead = g.shape.length - shape.length;
  const axes = g.shape.flatMap((d, i) => (i < lead || (shape[i - lead] === 1 && d !== 1) ? [i] : []));
  return axes.length === 0 ? g : reshape(sum(g, axes), shape);
}
