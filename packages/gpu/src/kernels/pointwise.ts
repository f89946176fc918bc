import { type View, collapse, contiguousLayout } from "@neolog/tensor";
import { printExpression } from "../expression.ts";
import { type Executor, type Kernel, type Parameter, array, float, int } from "../kernel.ts";
import { cached } from "./cached.ts";

/** How an operand lies: a number, one element, in the order of the result, or by strides. */
type Kind = "number" | "still" | "flat" | "strided";

/** out[i] = expression(inputs[0][i], …) over any strides. */
export function pointwise(executor: Executor, expression: string, out: View, inputs: readonly (View | number)[]): void {
  const { shape } = out.layout;
  const views = inputs.filter((x) => typeof x !== "number");
  const nest = collapse(shape, [contiguousLayout(shape), ...views.map(({ layout }) => layout)]);
  const sizes = [...nest.sizes, nest.n];
  const dense = [...nest.strides[0]!, nest.steps[0]!];
  const kinds: Kind[] = [];
  const args: Parameters<Executor["run"]>[0]["args"][number][] = [];
  let used = 0;
  for (const x of inputs) {
    if (typeof x === "number") {
      kinds.push("number");
      args.push(x);
      continue;
    }
    used++;
    const strides = [...nest.strides[used]!, nest.steps[used]!];
    const still = strides.every((stride, axis) => stride === 0 || sizes[axis] === 1);
    const flat = strides.every((stride, axis) => stride === dense[axis]);
    kinds.push(still ? "still" : flat ? "flat" : "strided");
    args.push(x.buffer, x.layout.offset, ...(still || flat ? [] : strides));
  }
  const rank = kinds.includes("strided") ? sizes.length : 1;
  const kernel = kernelOf(expression, out.buffer.dtype === "int32" ? "int32" : "float32", String(rank), ...kinds);
  executor.run({ kernel, args: [...args, ...(rank > 1 ? sizes.slice(1) : [])], out });
}

const kernelOf = cached((expression, dtype, rankText, ...kinds): Kernel => {
  const rank = Number(rankText);
  const parameters: Parameter[] = [];
  const loads: string[] = [];
  kinds.forEach((kind, i) => {
    const name = "abc"[i]!;
    if (kind === "number") {
      parameters.push(float(name));
      return;
    }
    const [data, offset] = [`${name}Data`, `${name}Offset`];
    parameters.push(array(data), int(offset));
    const strides = kind === "strided" ? Array.from({ length: rank }, (_, axis) => `${name}Stride${axis}`) : [];
    parameters.push(...strides.map(int));
    const terms = strides.map((stride, axis) => `${coordinate(axis, rank)} * ${stride}`);
    if (kind === "flat") terms.push("this.thread.x");
    loads.push(`const ${name} = ${data}[${[offset, ...terms].join(" + ")}];`);
  });
  for (let axis = 1; axis < rank; axis++) parameters.push(int(`size${axis}`));
  const value = printExpression(expression);
  return {
    key: ["pointwise", expression, dtype, rank, ...kinds].join(" "),
    parameters,
    body: `${loads.join(" ")}\nreturn ${dtype === "int32" ? `truncated(${value})` : value};`,
  };
});

/** The index along an axis of the element `this.thread.x` of a row-major result. */
export function coordinate(axis: number, rank: number, size = (i: number): string => `size${i}`): string {
  const inner = Array.from({ length: rank - 1 - axis }, (_, i) => size(axis + 1 + i)).join(" * ");
  const row = inner ? `idiv(this.thread.x, ${inner})` : "this.thread.x";
  return axis === 0 ? row : `imod(${row}, ${size(axis)})`;
}

/** A dense result from a contiguous array and its offset. */
export const COPY = kernelOf("a", "float32", "1", "flat");
