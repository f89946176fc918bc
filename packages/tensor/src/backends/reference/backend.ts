import type { Backend, Distribution, Reduction, View } from "../../backend.ts";
import type { DType } from "../../dtype.ts";
import { IndexError } from "../../errors.ts";
import { parseExpression } from "../../expression.ts";
import { sizeOf } from "../../layout.ts";
import { normalAt, uniformAt } from "../../random.ts";
import { HostMemory } from "../hostMemory.ts";
import { evaluate } from "./evaluate.ts";
import { load, positions, store } from "./elements.ts";

/** Obviously correct: one element at a time, float64 arithmetic and accumulation. The oracle of the conformance suite. */
export class ReferenceBackend extends HostMemory implements Backend {
  readonly name = "reference";
  readonly info = { name: "reference", arithmetic: "float64" };
  readonly exact = true;
  readonly dtypes: readonly DType[] = ["float64", "float32", "int32", "bfloat16", "float16"];

  pointwise(expression: string, out: View, inputs: readonly (View | number)[]): void {
    const node = parseExpression(expression);
    const at = inputs.map((x) => (typeof x === "number" ? null : positions(x.layout)));
    positions(out.layout).forEach((to, i) => {
      const values = inputs.map((x, j) => (typeof x === "number" ? x : load(x.buffer, at[j]![i]!)));
      store(out.buffer, to, evaluate(node, values));
    });
  }

  reduce(reduction: Reduction, out: View, x: View): void {
    const [outer, n, inner] = x.layout.shape as [number, number, number];
    for (let o = 0; o < outer; o++) {
      for (let i = 0; i < inner; i++) {
        const values = Array.from({ length: n }, (_, j) => load(x.buffer, x.layout.offset + (o * n + j) * inner + i));
        store(out.buffer, out.layout.offset + o * inner + i, REDUCE[reduction](values));
      }
    }
  }

  matmul(out: View, a: View, b: View): void {
    const k = a.layout.shape.at(-1)!;
    const aStep = a.layout.strides.at(-1)!;
    const bStep = b.layout.strides.at(-2)!;
    const firstOf = (view: View, axis: number): number[] => {
      const shape = out.layout.shape;
      const strides = view.layout.strides.with(axis, 0);
      return positions({ shape, strides, offset: view.layout.offset });
    };
    const aFirst = firstOf(a, a.layout.shape.length - 1);
    const bFirst = firstOf(b, b.layout.shape.length - 2);
    positions(out.layout).forEach((to, i) => {
      let sum = 0;
      for (let p = 0; p < k; p++)
        sum += load(a.buffer, aFirst[i]! + p * aStep) * load(b.buffer, bFirst[i]! + p * bStep);
      store(out.buffer, to, sum);
    });
  }

  takeRows(out: View, table: View, ids: View): void {
    const [rows, width] = rowsOf(table);
    for (let i = 0; i < ids.layout.shape[0]!; i++) {
      const id = load(ids.buffer, ids.layout.offset + i);
      if (id >= rows) throw new IndexError("takeRows", `ids must be below ${rows}`, id);
      for (let j = 0; j < width; j++) {
        store(
          out.buffer,
          out.layout.offset + i * width + j,
          id < 0 ? 0 : load(table.buffer, table.layout.offset + id * width + j),
        );
      }
    }
  }

  addRows(out: View, rows: View, ids: View): void {
    const [count, width] = rowsOf(out);
    const sums = Float64Array.from({ length: count * width }, (_, i) => load(out.buffer, out.layout.offset + i));
    for (let i = 0; i < ids.layout.shape[0]!; i++) {
      const id = load(ids.buffer, ids.layout.offset + i);
      if (id >= count) throw new IndexError("addRows", `ids must be below ${count}`, id);
      if (id < 0) continue;
      for (let j = 0; j < width; j++) sums[id * width + j]! += load(rows.buffer, rows.layout.offset + i * width + j);
    }
    sums.forEach((value, i) => store(out.buffer, out.layout.offset + i, value));
  }

  copy(out: View, x: View): void {
    const from = positions(x.layout);
    const values = from.map((at) => load(x.buffer, at));
    positions(out.layout).forEach((to, i) => store(out.buffer, to, values[i]!));
  }

  fill(out: View, value: number): void {
    for (const to of positions(out.layout)) store(out.buffer, to, value);
  }

  random(distribution: Distribution, out: View, seed: number): void {
    const at = distribution === "uniform" ? uniformAt : normalAt;
    positions(out.layout).forEach((to, i) => store(out.buffer, to, at(seed, i)));
  }
}

const REDUCE: { readonly [R in Reduction]: (values: readonly number[]) => number } = {
  sum: (values) => values.reduce((total, v) => total + v, 0),
  max: (values) => values.reduce((largest, v) => Math.max(largest, v), -Infinity),
  min: (values) => values.reduce((smallest, v) => Math.min(smallest, v), Infinity),
  argmax: (values) => {
    const nan = values.findIndex((v) => v !== v);
    return nan >= 0 ? nan : values.indexOf(values.reduce((largest, v) => Math.max(largest, v), -Infinity));
  },
};

function rowsOf({ layout: { shape } }: View): [rows: number, width: number] {
  return [shape[0]!, sizeOf(shape.slice(1))];
}
