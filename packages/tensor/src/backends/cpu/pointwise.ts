import type { View } from "../../backend.ts";
import type { DType } from "../../dtype.ts";
import { sizeOf } from "../../layout.ts";
import { dataOf } from "../hostMemory.ts";
import { cached, compile, load, printExpression, store } from "./generate.ts";
import { collapse } from "./strided.ts";

const INPUTS = ["a", "b", "c"];

/** How a kernel walks an operand in the inner loop; a kernel is compiled for each combination. */
type Step = "still" | "next" | "far";
const stepOf = (step: number): Step => (step === 0 ? "still" : step === 1 ? "next" : "far");

/** out[i] = expression(inputs[0][i], …) over any strides; `out` may be one of the inputs. */
export function pointwise(expression: string, out: View, inputs: readonly (View | number)[]): void {
  if (sizeOf(out.layout.shape) === 0) return;
  const views = [out];
  for (const x of inputs) if (typeof x !== "number") views.push(x);
  const nest = collapse(
    out.layout.shape,
    views.map((view) => view.layout),
  );
  const operand = (i: number): [string, unknown[]] => {
    const { buffer, layout } = views[i]!;
    const step = nest.steps[i]!;
    return [`${buffer.dtype} ${stepOf(step)}`, [dataOf(buffer), layout.offset, step, nest.strides[i]]];
  };
  let used = 0;
  const [kind, outArgs] = operand(used++);
  const kinds = [expression, kind];
  const args: unknown[] = [nest.sizes, nest.n, ...outArgs];
  for (const x of inputs) {
    const [inputKind, inputArgs] = typeof x === "number" ? ["number", [x]] : operand(used++);
    kinds.push(inputKind);
    args.push(...inputArgs);
  }
  kernel(...kinds)(...args);
}

const kernel = cached((expression: string, out: string, ...inputs: string[]) => {
  const operands = inputs.flatMap((kind, i) => (kind === "number" ? [] : [operandOf(INPUTS[i]!, kind)]));
  const result = operandOf("out", out);
  const all = [result, ...operands];
  const parameters = inputs.flatMap((kind, i) =>
    kind === "number" ? [INPUTS[i]!] : operandOf(INPUTS[i]!, kind).parameters,
  );
  const still = operands.filter((x) => x.step === "still");
  const moving = operands.filter((x) => x.step !== "still");
  return compile(
    ["sizes", "n", ...result.parameters, ...parameters],
    `const index = new Array(sizes.length).fill(0);
    for (;;) {
      ${still.map((x) => `const ${x.name} = ${load(x.dtype, x.array, x.start)};`).join(" ")}
      for (let i = 0; i < n; i++) {
        ${moving.map((x) => `const ${x.name} = ${load(x.dtype, x.array, x.at)};`).join(" ")}
        ${store(result.dtype, result.array, result.at, printExpression(expression))}
      }
      let axis = sizes.length - 1;
      for (; axis >= 0; axis--) {
        ${all.map((x) => `${x.start} += ${x.strides}[axis];`).join(" ")}
        if (++index[axis] < sizes[axis]) break;
        ${all.map((x) => `${x.start} -= ${x.strides}[axis] * sizes[axis];`).join(" ")}
        index[axis] = 0;
      }
      if (axis < 0) return;
    }`,
  );
});

function operandOf(name: string, kind: string) {
  const [dtype, step] = kind.split(" ") as [DType, Step];
  const [array, start, by, strides] = [`${name}Data`, `${name}Start`, `${name}Step`, `${name}Strides`];
  const at = { still: start, next: `${start} + i`, far: `${start} + i * ${by}` }[step];
  return { name, dtype, step, array, start, strides, at, parameters: [array, start, by, strides] };
}
