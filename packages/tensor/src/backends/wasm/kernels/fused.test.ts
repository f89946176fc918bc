import { expect, test } from "vitest";
import type { View } from "../../../backend.ts";
import type { DType } from "../../../dtype.ts";
import type { Shape } from "../../../errors.ts";
import { toBfloat16 } from "../../../half.ts";
import { contiguousLayout, sizeOf } from "../../../layout.ts";
import { expectClose } from "../../../testing/matchers.ts";
import * as plain from "../../cpu/index.ts";
import { dataOf } from "../../hostMemory.ts";
import { Engine } from "../engine.ts";
import { WasmMemory } from "../heap.ts";
import { fusedKernels } from "./fused.ts";

const engine = new Engine({ madd: false }, 1, Infinity);
engine.heap.memories.push(new WasmMemory(1, 1));
const fused = fusedKernels(engine);

function view(memory: number, dtype: DType, shape: Shape, values: readonly number[] = []): View {
  const buffer = engine.heap.allocateIn(memory, dtype, sizeOf(shape) + 1);
  buffer.data.fill(7);
  buffer.data.set(dtype === "bfloat16" ? values.map(toBfloat16) : values, 1);
  return { buffer, layout: contiguousLayout(shape, 1) };
}
const elements = ({ buffer, layout }: View) =>
  dataOf(buffer).subarray(layout.offset, layout.offset + sizeOf(layout.shape));

const X = Array.from({ length: 34 }, (_, i) => ((i * 7) % 11) - 5);
const W = Array.from({ length: 17 }, (_, i) => (i % 5) - 1.5);

test.each([
  ["all here", 0, 0, 0],
  ["x elsewhere", 0, 1, 0],
  ["weight elsewhere", 0, 0, 1],
  ["all elsewhere", 1, 1, 1],
])("operands of any memory and float dtype, off by one: %s", (_, ofOut, ofX, ofWeight) => {
  const before = engine.heap.live;
  for (const dtype of ["float32", "bfloat16"] as const) {
    const [x, weight, g] = [
      view(ofX, "float32", [2, 17], X),
      view(ofWeight, dtype, [17], W),
      view(ofX, "float32", [2, 17], X),
    ];
    const [out, expected] = [view(ofOut, "float32", [2, 17]), view(0, "float32", [2, 17])];
    const live = engine.heap.live;
    for (const name of ["rmsNorm", "rmsNormGrad", "layerNormGrad"] as const) {
      const inputs = name === "rmsNorm" ? [x, weight] : [x, weight, g];
      fused[name]!(out, inputs, { eps: 1e-5 });
      plain.fused[name]!(expected, inputs, { eps: 1e-5 });
      // a handful of float32 roundings of values of order 1
      expectClose(elements(out), elements(expected), { relative: 1e-6, absolute: 1e-6 });
      expect(dataOf(out.buffer)[0]).toBe(7);
    }
    expect(engine.heap.live).toBe(live);
    for (const { buffer } of [x, weight, g, out, expected]) engine.heap.free(buffer as never);
  }
  expect(engine.heap.live).toBe(before);
});

test("targets in another memory stay whole numbers", () => {
  const logits = view(0, "float32", [2, 17], X);
  const [here, there] = [0, 1].map((memory) => view(memory, "int32", [2], [16, 0]));
  const [y, z] = [view(0, "float32", []), view(1, "float32", [])];
  fused.crossEntropy!(y, [logits, here!], { ignoreIndex: -100 });
  fused.crossEntropy!(z, [logits, there!], { ignoreIndex: -100 });
  expect(elements(z)).toEqual(elements(y));
});
