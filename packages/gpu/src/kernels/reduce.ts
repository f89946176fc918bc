import { type Reduction, type View, contiguousLayout } from "@neolog/tensor";
import { type Executor, type Kernel, array, int } from "../kernel.ts";
import { cached } from "./cached.ts";

/** Rows longer than this are reduced in parts, one thread each, and the parts again. */
const LONG = 1024;
const PARTS = 256;

/** x [outer, n, inner] → out [outer, inner]; an argmax is the first. */
export function reduce(executor: Executor, reduction: Reduction, out: View, x: View): void {
  const [outer, n, inner] = x.layout.shape as [number, number, number];
  const { dtype } = out.buffer;
  if (n <= LONG || reduction === "argmax") {
    const args = [x.buffer, x.layout.offset, n, n, 1, inner];
    executor.run({ kernel: kernelOf(reduction, dtype), args, out });
    return;
  }
  const buffer = executor.allocate(dtype === "int32" ? "int32" : "float32", outer * PARTS * inner);
  const parts: View = { buffer, layout: contiguousLayout([outer, PARTS, inner]) };
  const length = Math.ceil(n / PARTS);
  const used = Math.ceil(n / length);
  const layout = contiguousLayout([outer, used, inner]);
  const args = [x.buffer, x.layout.offset, n, length, used, inner];
  executor.run({ kernel: kernelOf(reduction, dtype), args, out: { buffer, layout } });
  executor.run({ kernel: kernelOf(reduction, dtype), args: [parts.buffer, 0, used, used, 1, inner], out });
  executor.free(buffer);
}

/** What starts from the first element and takes in the element x at position j. */
const STEPS: { readonly [R in Reduction]: (x: string) => string } = {
  sum: (x) => `r += ${x};`,
  max: (x) => `r = largest(r, ${x});`,
  min: (x) => `r = smallest(r, ${x});`,
  argmax: (x) => `const x = ${x}; if (isNan(r) < 1 && (x > r || isNan(x) > 0)) { r = x; at = j; }`,
};

/** Part p of the `parts` parts, of `length` each, into which every run of n is cut. */
const kernelOf = cached((reduction, dtype): Kernel => {
  const element = (j: string): string =>
    `data[offset + (idiv(this.thread.x, inner * parts) * n + imod(idiv(this.thread.x, inner), parts) * length + ${j}) * inner + imod(this.thread.x, inner)]`;
  const first = reduction === "sum" ? "0" : element("0");
  const result = reduction === "argmax" ? "at" : "r";
  return {
    key: `reduce ${reduction} ${dtype}`,
    parameters: [array("data"), int("offset"), int("n"), int("length"), int("parts"), int("inner")],
    body: `let r = ${first};
      ${reduction === "argmax" ? "let at = 0;" : ""}
      for (let j = ${reduction === "sum" ? 0 : 1}; j < lengthOf(n, length, imod(idiv(this.thread.x, inner), parts)); j++) {
        ${STEPS[reduction as Reduction](element("j"))}
      }
      return ${result};`,
  };
});
