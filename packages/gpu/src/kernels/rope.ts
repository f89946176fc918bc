import { type Layout, type View, collapse, contiguousLayout, expandLayout } from "@neolog/tensor";
import { type Executor, type Kernel, array, int } from "../kernel.ts";
import { cached } from "./cached.ts";
import { coordinate, texelCoordinate } from "./pointwise.ts";

/** Turns every pair of the last axis by its angle: x and out [..., D], x of any strides, cos and sin of one shape that broadcasts to [..., D/2]. */
export function rope(
  executor: Executor,
  out: View,
  [x, cos, sin]: readonly View[],
  { interleaved }: { readonly interleaved: boolean },
): void {
  const { shape } = out.layout;
  const [width, half] = [shape.at(-1)!, shape.at(-1)! / 2];
  const pairs = [...shape.slice(0, -1), half];
  const step = x!.layout.strides.at(-1)!;
  const [next, apart] = interleaved ? [2 * step, step] : [step, half * step];
  const firsts: Layout = { shape: pairs, strides: x!.layout.strides.with(-1, next), offset: x!.layout.offset };
  const [cosines, sines] = [cos!, sin!].map(({ layout }) => expandLayout(layout, pairs)) as [Layout, Layout];
  const nest = collapse(pairs, [contiguousLayout(pairs), firsts, cosines, sines]);
  const sizes = [...nest.sizes, nest.n];
  const operands = [x!, cos!, sin!].map(({ buffer, layout }, i) => {
    const strides = [...nest.strides[i + 1]!, nest.steps[i + 1]!];
    const whole = strides.at(-1) === 1 && [layout.offset, nest.n, ...strides.slice(0, -1)].every((n) => n % 4 === 0);
    return { args: [buffer, layout.offset, ...strides], whole };
  });
  const texels = executor.mode === "webgl2" && !interleaved && half % 4 === 0 && operands.every(({ whole }) => whole);
  const kernel = kernelOf(String(sizes.length), interleaved ? "interleaved" : "halves", texels ? "texels" : "");
  executor.run({ kernel, args: [...operands.flatMap(({ args }) => args), apart, width, half, ...sizes.slice(1)], out });
}

const kernelOf = cached((rankText, lie, texels): Kernel => {
  const rank = Number(rankText);
  const axes = Array.from({ length: rank }, (_, axis) => axis);
  const column = "imod(this.thread.x, width)";
  const [second, pair] =
    lie === "interleaved"
      ? ["imod(this.thread.x, 2)", "idiv(this.thread.x, 2)"]
      : [`idiv(${column}, half)`, `(idiv(this.thread.x, width) * half + imod(${column}, half))`];
  const at = (name: string): string =>
    [`${name}Offset`, ...axes.map((axis) => `${coordinate(axis, rank, undefined, pair)} * ${name}Stride${axis}`)].join(
      " + ",
    );
  const texel = (name: string, more = ""): string => {
    const terms = axes.map((axis) => `${texelCoordinate(axis, rank, "pair")} * user_${name}Stride${axis}`);
    return `fetch4(user_${name}Data, user_${name}DataDim.y, user_${name}Offset + ${terms.join(" + ")}${more})`;
  };
  return {
    key: ["rope", lie, rank, texels].join(" "),
    parameters: [
      ...["x", "cos", "sin"].flatMap((name) => [
        array(`${name}Data`),
        int(`${name}Offset`),
        ...axes.map((axis) => int(`${name}Stride${axis}`)),
      ]),
      ...["apart", "width", "half"].map(int),
      ...axes.slice(1).map((axis) => int(`size${axis}`)),
    ],
    body: `const x = xData[${at("x")} + apart * ${second}];
      const partner = xData[${at("x")} + apart * (1 - ${second})];
      const across = partner * sinData[${at("sin")}];
      const along = x * cosData[${at("cos")}];
      if (${second} < 1) { return along - across; }
      return along + across;`,
    ...(texels
      ? {
          glsl: `int column = first % user_width;
  int second = column / user_half;
  int pair = first / user_width * user_half + column % user_half;
  vec4 along = ${texel("x", " + user_apart * second")} * ${texel("cos")};
  vec4 across = ${texel("x", " + user_apart * (1 - second)")} * ${texel("sin")};
  return second == 0 ? along - across : along + across;`,
        }
      : {}),
  };
});
