import { afterAll, describe, expect, test } from "vitest";
import { intTensor, randn } from "../../create.ts";
import type { Shape } from "../../errors.ts";
import { attention } from "../../ops/attention.ts";
import { crossEntropy } from "../../ops/loss.ts";
import { matmul, matmulT } from "../../ops/matmul.ts";
import { cast, permute } from "../../ops/movement.ts";
import { layerNorm, rmsNorm } from "../../ops/norm.ts";
import { add, exp, gelu, mul } from "../../ops/pointwise.ts";
import { argmax, max, sum } from "../../ops/reduce.ts";
import { scatterRows, takeRows } from "../../ops/rows.ts";
import { softmax } from "../../ops/softmax.ts";
import { Scope } from "../../scope.ts";
import type { Tensor } from "../../tensor.ts";
import { sameBytes } from "../../testing/matchers.ts";
import { WasmBackend } from "./backend.ts";

const one = new WasmBackend({ threads: 2 });
afterAll(() => one.close());

type Make = (seed: number, ...shape: Shape) => Tensor;
type Run = (random: Make, ints: (values: readonly number[], ...shape: Shape) => Tensor) => Tensor;

const ids = Array.from({ length: 50 }, (_, i) => ((i * 7) % 53) - 2);
const OPS: { readonly [name: string]: Run } = {
  matmul: (r) => matmul(r(1, 65, 300), r(2, 300, 129)),
  "matmul of bfloat16": (r) => matmulT(r(1, 65, 300), cast(r(2, 129, 300), "bfloat16")),
  "matmul of a vector": (r) => matmulT(r(1, 1, 768), cast(r(2, 513, 768), "bfloat16")),
  softmax: (r) => softmax(r(1, 37, 1031)),
  layerNorm: (r) => layerNorm(r(1, 37, 768), r(2, 768), r(3, 768), 1e-5),
  rmsNorm: (r) => rmsNorm(r(1, 37, 768), r(2, 768), 1e-6),
  attention: (r, ints) =>
    attention(
      r(1, 2, 4, 33, 16),
      r(2, 2, 2, 33, 16),
      r(3, 2, 2, 33, 16),
      ints(
        Array.from({ length: 1089 }, () => 1),
        33,
        33,
      ),
    ),
  crossEntropy: (r, ints) => crossEntropy(r(1, 50, 1031), ints(ids.map((id) => Math.max(0, id)))),
  "add of a row": (r) => add(r(1, 37, 771), r(2, 771)),
  gelu: (r) => gelu(mul(r(1, 37, 771), exp(r(2, 37, 1)))),
  exp: (r) => exp(r(1, 37, 771)),
  "add of nothing": (r) => add(r(1, 0, 3), r(2, 3)),
  "sum of nothing": (r) => sum(r(1, 3, 0), -1),
  sum: (r) => sum(r(1, 37, 771), -1),
  "sum of columns": (r) => sum(r(1, 371, 71), 0),
  max: (r) => max(r(1, 37, 771), -1),
  argmax: (r) => argmax(r(1, 37, 771), -1),
  transpose: (r) => add(permute(r(1, 37, 71, 5), [2, 0, 1]), 0),
  cast: (r) => cast(cast(r(1, 37, 771), "float16"), "float32"),
  takeRows: (r, ints) => takeRows(cast(r(1, 53, 129), "bfloat16"), ints(ids)),
  scatterRows: (r, ints) => scatterRows(r(1, 50, 129), ints(ids), 53),
};

/** Operands and results in the first memory or outside, by the bits of `mask`. */
const placed = (mask: number): WasmBackend => {
  let count = 0;
  return new WasmBackend({ threads: 2 }, () => ((mask >> (count++ % 3)) & 1 ? 1 : 0));
};

describe.each([0b001, 0b010, 0b011, 0b101, 0b110, 0b111])("with buffers outside the first memory by %i", (mask) => {
  const many = placed(mask);
  afterAll(() => many.close());
  const on = (backend: WasmBackend, run: Run) => {
    using _scope = new Scope();
    const ints = (values: readonly number[], ...shape: Shape): Tensor =>
      intTensor(values, shape.length > 0 ? shape : [values.length], backend);
    return run((seed, ...shape) => randn(shape, seed, "float32", backend), ints).dataSync();
  };
  test.each(Object.entries(OPS))("%s gives the same bytes", (_, run) => {
    expect(sameBytes(on(many, run), on(one, run))).toBe(true);
    expect(many.live).toBe(0);
  });
});
