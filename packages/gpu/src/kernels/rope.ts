import { type View, collapse, contiguousLayout, expandLayout } from "@neolog/tensor";
import { type Executor, type Kernel, array, int } from "../kernel.ts";
import { cached } from "./cached.ts";
import { coordinate } from "./pointwise.ts";

/** Turns every pair of the last axis by its angle: x and out [..., D], cos and sin of one shape that broadcasts to [..., D/2]. */
export function rope(
  executor: Executor,
  out: View,
  [x, cos, sin]: readonly View[],
  { interleaved }: { readonly interleaved: boolean },
): void {
  const { shape } = out.layout;
  const width = shape.at(-1)!;
  const pairs = [...shape.slice(0, -1), width / 2];
  const angles = expandLayout(contiguousLayout(cos!.layout.shape), pairs);
  const nest = collapse(pairs, [contiguousLayout(pairs), angles]);
  const sizes = [...nest.sizes, nest.n];
  const strides = [...nest.strides[1]!, nest.steps[1]!];
  const offsets = [x!, cos!, sin!].flatMap(({ buffer, layout }) => [buffer, layout.offset]);
  const kernel = kernelOf(String(sizes.length), interleaved ? "interleaved" : "halves");
  executor.run({ kernel, args: [...offsets, width, width / 2, ...strides, ...sizes.slice(1)], out });
}

const kernelOf = cached((rankText, lie): Kernel => {
  const rank = Number(rankText);
  const axes = Array.from({ length: rank }, (_, axis) => axis);
  const column = "imod(this.thread.x, width)";
  const [second, pair, apart] =
    lie === "interleaved"
      ? ["imod(this.thread.x, 2)", "idiv(this.thread.x, 2)", "1"]
      : [`idiv(${column}, half)`, `(idiv(this.thread.x, width) * half + imod(${column}, half))`, "half"];
  const angle = axes.map((axis) => `${coordinate(axis, rank, undefined, pair)} * stride${axis}`).join(" + ");
  return {
    key: `rope ${lie} ${rank}`,
    parameters: [
      ...["x", "cos", "sin"].flatMap((name) => [array(`${name}Data`), int(`${name}Offset`)]),
      int("width"),
      int("half"),
      ...axes.map((axis) => int(`stride${axis}`)),
      ...axes.slice(1).map((axis) => int(`size${axis}`)),
    ],
    body: `const x = xData[xOffset + this.thread.x];
      const partner = xData[xOffset + this.thread.x + ${apart} * (1 - 2 * ${second})];
      const across = partner * sinData[sinOffset + ${angle}];
      const along = x * cosData[cosOffset + ${angle}];
      if (${second} < 1) { return along - across; }
      return along + across;`,
  };
});
