import { type View, collapse, contiguousLayout } from "@neolog/tensor";
import { printExpression } from "../expression.ts";
import { type Executor, type Kernel, type Parameter, array, float, int } from "../kernel.ts";
import { cached } from "./cached.ts";

/** How an operand lies: a number, one element, in the order of the result, or by strides. */
type Kind = "number" | "still" | "flat" | "strided";

/** How four neighbours of the result find an operand: in a texel of it, or all the same. */
type Load = "texel" | "same";

/** out[i] = expression(inputs[0][i], …) over any strides. */
export function pointwise(executor: Executor, expression: string, out: View, inputs: readonly (View | number)[]): void {
  const { shape } = out.layout;
  const views = inputs.filter((x) => typeof x !== "number");
  const nest = collapse(shape, [contiguousLayout(shape), ...views.map(({ layout }) => layout)]);
  const sizes = [...nest.sizes, nest.n];
  const dense = [...nest.strides[0]!, nest.steps[0]!];
  const kinds: Kind[] = [];
  const loads: (Load | null)[] = [];
  const args: Parameters<Executor["run"]>[0]["args"][number][] = [];
  let used = 0;
  for (const x of inputs) {
    if (typeof x === "number") {
      kinds.push("number");
      loads.push("same");
      args.push(x);
      continue;
    }
    used++;
    const strides = [...nest.strides[used]!, nest.steps[used]!];
    const still = strides.every((stride, axis) => stride === 0 || sizes[axis] === 1);
    const flat = strides.every((stride, axis) => stride === dense[axis]);
    kinds.push(still ? "still" : flat ? "flat" : "strided");
    loads.push(still ? "same" : loadOf(flat ? [1] : strides, flat ? 4 : nest.n, x.layout.offset));
    args.push(x.buffer, x.layout.offset, ...(still || flat ? [] : strides));
  }
  const rank = kinds.includes("strided") ? sizes.length : 1;
  const packed = executor.mode === "webgl2" && !loads.includes(null) ? loads.join(" ") : "";
  const dtype = out.buffer.dtype === "int32" ? "int32" : "float32";
  const kernel = kernelOf(expression, dtype, String(rank), packed, ...kinds);
  executor.run({ kernel, args: [...args, ...(rank > 1 ? sizes.slice(1) : [])], out });
}

/** `n` is the length of the last axis, in which the texels of the result lie if it is a multiple of 4. */
function loadOf(strides: readonly number[], n: number, offset: number): Load | null {
  if (n % 4 !== 0) return null;
  if (strides.at(-1) === 0) return "same";
  return strides.at(-1) === 1 && [offset, ...strides.slice(0, -1)].every((x) => x % 4 === 0) ? "texel" : null;
}

const kernelOf = cached((expression, dtype, rankText, packed, ...kinds): Kernel => {
  const rank = Number(rankText);
  const parameters: Parameter[] = [];
  const loads: string[] = [];
  const texels: string[] = [];
  kinds.forEach((kind, i) => {
    const name = "abc"[i]!;
    if (kind === "number") {
      parameters.push(float(name));
      texels.push(`vec4 ${name}4 = vec4(user_${name});`);
      return;
    }
    const [data, offset] = [`${name}Data`, `${name}Offset`];
    parameters.push(array(data), int(offset));
    const strides = kind === "strided" ? Array.from({ length: rank }, (_, axis) => `${name}Stride${axis}`) : [];
    parameters.push(...strides.map(int));
    const terms = strides.map((stride, axis) => `${coordinate(axis, rank)} * ${stride}`);
    if (kind === "flat") terms.push("this.thread.x");
    const places = strides.map((stride, axis) => `${texelCoordinate(axis, rank)} * user_${stride}`);
    const at = [`user_${offset}`, ...(kind === "flat" ? ["first"] : places)].join(" + ");
    const [fetch, open, close] = packed.split(" ")[i] === "texel" ? ["fetch4", "", ""] : ["element", "vec4(", ")"];
    texels.push(`vec4 ${name}4 = ${open}${fetch}(user_${data}, user_${data}Dim.y, ${at})${close};`);
    loads.push(`const ${name} = ${data}[${[offset, ...terms].join(" + ")}];`);
  });
  for (let axis = 1; axis < rank; axis++) parameters.push(int(`size${axis}`));
  const value = printExpression(expression);
  const names = [..."abc"].slice(0, kinds.length);
  const result = dtype === "int32" ? `truncated(${value})` : value;
  const kernel = { key: ["pointwise", expression, dtype, rank, packed, ...kinds].join(" "), parameters };
  if (!packed) return { ...kernel, body: `${loads.join(" ")}\nreturn ${result};` };
  const four = [..."xyzw"].map((c) => `computed(${names.map((name) => `${name}4.${c}`).join(", ")})`);
  return {
    ...kernel,
    body: `${loads.join(" ")}\nreturn computed(${names.join(", ")});`,
    functions: [
      {
        source: `function computed(${names.join(", ")}) { return ${result}; }`,
        settings: { returnType: "Number", argumentTypes: Object.fromEntries(names.map((name) => [name, "Number"])) },
      },
    ],
    glsl: `${texels.join(" ")}\n  return vec4(${four.join(", ")});`,
  };
});

/** `coordinate` of a texel's first element, in GLSL. */
export function texelCoordinate(axis: number, rank: number, at = "first"): string {
  const inner = Array.from({ length: rank - 1 - axis }, (_, i) => `user_size${axis + 1 + i}`);
  const row = [at, ...(inner.length > 0 ? [`(${inner.join(" * ")})`] : [])].join(" / ");
  return axis === 0 ? `(${row})` : `(${row} % user_size${axis})`;
}

/** The index along an axis of element `at` of a row-major array. */
export function coordinate(
  axis: number,
  rank: number,
  size = (i: number): string => `size${i}`,
  at = "this.thread.x",
): string {
  const inner = Array.from({ length: rank - 1 - axis }, (_, i) => size(axis + 1 + i)).join(" * ");
  const row = inner ? `idiv(${at}, ${inner})` : at;
  return axis === 0 ? row : `imod(${row}, ${size(axis)})`;
}

/** A dense result from a contiguous array and its offset. */
export const COPY = kernelOf("a", "float32", "1", "", "flat");
