import { describe, expect, test } from "vitest";
import { assign, full, intTensor, tensor, zeros } from "../../create.ts";
import { type AdamWNumbers, adamw } from "../../ops/adamw.ts";
import { attention } from "../../ops/attention.ts";
import { crossEntropy, crossEntropyGrad } from "../../ops/loss.ts";
import { matmul, matmulT } from "../../ops/matmul.ts";
import { cat, expand, permute, reshape, select, slice, split, squeeze } from "../../ops/movement.ts";
import { layerNorm, layerNormGrad, rmsNormGrad } from "../../ops/norm.ts";
import { add } from "../../ops/pointwise.ts";
import { argmax, max, sum } from "../../ops/reduce.ts";
import { rope } from "../../ops/rope.ts";
import { gather, overriddenRows, overrideColumns, overrideRows, scatterRows, takeRows } from "../../ops/rows.ts";
import { softmaxGrad } from "../../ops/softmax.ts";
import { Scope } from "../../scope.ts";
import type { Tensor } from "../../tensor.ts";
import type { Bench } from "../bench.ts";

type Make = (...shape: number[]) => Tensor;

/** A bad call, and the whole message it gets. */
const ADAMW: AdamWNumbers = { lr: 1, betas: [0.9, 0.9], eps: 1, weight_decay: 0, maximize: false, step: 1 };

const MESSAGES: readonly [message: string, call: (t: Make, ints: Make) => unknown][] = [
  ["ShapeError: matmul: inner dimensions must agree (3 ≠ 4), got [2, 3] and [4, 5]", (t) => matmul(t(2, 3), t(4, 5))],
  ["ShapeError: matmul: both need at least two axes, got [3] and [3, 2]", (t) => matmul(t(3), t(3, 2))],
  ["ShapeError: matmul: shapes must broadcast, got [2] and [3]", (t) => matmul(t(2, 1, 4), t(3, 4, 1))],
  ["DTypeError: matmul: both must be floats, got int32 and float32", (t, ints) => matmul(ints(2, 3), t(3, 2))],
  ["ShapeError: matmulT: inner dimensions must agree (3 ≠ 4), got [2, 3] and [5, 4]", (t) => matmulT(t(2, 3), t(5, 4))],
  ["ShapeError: add: shapes must broadcast, got [2, 3] and [2, 4]", (t) => add(t(2, 3), t(2, 4))],
  ["BackendError: add: at least one argument must be a tensor, got numbers only", () => add(1, 2)],
  ["ShapeError: sum: axis 2 must be in [-2, 2), got [2, 3]", (t) => sum(t(2, 3), 2)],
  ["ShapeError: max: reduced axes must not be empty, got [0, 3]", (t) => max(t(0, 3), 0)],
  ["ShapeError: argmax: the axis must not be empty, got [2, 0]", (t) => argmax(t(2, 0))],
  ["ShapeError: reshape: shape must hold 6 elements, got [2, 3] and [4, -1]", (t) => reshape(t(2, 3), [4, -1])],
  ["ShapeError: reshape: shape must hold 6 elements, got [2, 3] and [-1, -1]", (t) => reshape(t(2, 3), [-1, -1])],
  ["ShapeError: permute: axes [0, 0] must name every axis once, got [2, 3]", (t) => permute(t(2, 3), [0, 0])],
  ["ShapeError: expand: x must broadcast to shape, got [2, 3] and [2, 1]", (t) => expand(t(2, 3), [2, 1])],
  ["IndexError: slice: step must be a positive integer, got 0", (t) => slice(t(2), 0, 0, 2, 0)],
  ["IndexError: slice: bounds must be integers, got 0.5", (t) => slice(t(2), 0, 0.5)],
  ["IndexError: select: index must be in [-2, 2), got 2", (t) => select(t(2, 3), 0, 2)],
  ["ShapeError: squeeze: axis 0 must have size 1, got [2, 3]", (t) => squeeze(t(2, 3), 0)],
  [
    "ShapeError: adamw: all arrays must have one shape, got [2] and [2] and [2] and [3]",
    (t) => adamw({ p: t(2), grad: t(3), exp_avg: t(2), exp_avg_sq: t(2), toward: null }, ADAMW),
  ],
  ["ShapeError: cat: at least one tensor is needed", () => cat([])],
  [
    "ShapeError: cat: dtypes and all sizes but axis 0 must agree, got [2, 3] and [2, 4]",
    (t) => cat([t(2, 3), t(2, 4)]),
  ],
  ["ShapeError: split: sizes [1, 1] must add up to axis 1, got [2, 3]", (t) => split(t(2, 3), [1, 1])],
  ["IndexError: takeRows: ids must be below 2, got 2", (t) => takeRows(t(2, 3), Int32Array.of(0, 2))],
  ["IndexError: scatterRows: ids must be below 2, got 5", (t) => scatterRows(t(1, 3), Int32Array.of(5), 2)],
  [
    "ShapeError: scatterRows: as many ids as rows are needed (2 ≠ 1), got [1, 3] and [2]",
    (t) => scatterRows(t(1, 3), Int32Array.of(0, 1), 2),
  ],
  [
    "ShapeError: overrideRows: x [n, D], rows [k, D] and slots [n] must agree, got [2, 3] and [1, 4] and [2]",
    (t) => overrideRows(t(2, 3), t(1, 4), Int32Array.of(0, -1)),
  ],
  [
    "ShapeError: overriddenRows: table [V, D] and rows [k, D] are needed, got [2, 3] and [1, 4]",
    (t) => overriddenRows(t(2, 3), Int32Array.of(0), t(1, 4), Int32Array.of(-1)),
  ],
  [
    "ShapeError: overriddenRows: as many slots as ids are needed, got [2] and [1]",
    (t) => overriddenRows(t(2, 3), Int32Array.of(0, 1), t(1, 3), Int32Array.of(-1)),
  ],
  [
    "IndexError: overriddenRows: ids must be below 2, got 2",
    (t) => overriddenRows(t(2, 3), Int32Array.of(2), t(1, 3), Int32Array.of(0)),
  ],
  [
    "ShapeError: overrideColumns: values must hold 1 columns for each row of x, got [2, 3] and [2, 2]",
    (t) => overrideColumns(t(2, 3), t(2, 2), Int32Array.of(0)),
  ],
  [
    "IndexError: overrideColumns: columns must be in [0, 3), got 3",
    (t) => overrideColumns(t(2, 3), t(2, 1), Int32Array.of(3)),
  ],
  [
    "ShapeError: gather: index must have x's rank and no larger sizes beside axis 1, got [2, 3] and [3, 3]",
    (t, ints) => gather(t(2, 3), 1, ints(3, 3)),
  ],
  [
    "ShapeError: layerNorm: weight and bias must have the size of the last axis, got [2, 3] and [2]",
    (t) => layerNorm(t(2, 3), t(3), t(2), 1e-5),
  ],
  [
    "ShapeError: softmaxGrad: result and gradient must agree, got [2, 3] and [3, 2]",
    (t) => softmaxGrad(t(2, 3), t(3, 2)),
  ],
  [
    "ShapeError: layerNormGrad: weight and bias must have the size of the last axis, got [2, 3] and [2]",
    (t) => layerNormGrad(t(2, 3), t(2), t(2, 3), 1e-5),
  ],
  [
    "ShapeError: rmsNormGrad: input and gradient must agree, got [2, 3] and [3]",
    (t) => rmsNormGrad(t(2, 3), t(3), t(3), 1e-5),
  ],
  [
    "ShapeError: crossEntropyGrad: a gradient of one element is needed, got [2]",
    (t, ints) => crossEntropyGrad(t(2, 3), ints(2), t(2)),
  ],
  [
    "ShapeError: rope: cos and sin must broadcast to x with half its last axis, got [2, 4] and [2, 4] and [2, 4]",
    (t) => rope(t(2, 4), t(2, 4), t(2, 4)),
  ],
  [
    "ShapeError: attention: q [B, H, T, D], k [B, K, S, D], v [B, K, S, E] with H a multiple of K are needed, got [1, 3, 2, 4] and [1, 2, 5, 4] and [1, 2, 5, 4]",
    (t) => attention(t(1, 3, 2, 4), t(1, 2, 5, 4), t(1, 2, 5, 4), t(2, 5)),
  ],
  [
    "ShapeError: attention: mask must broadcast to [1, 2, 2, 5], got [3, 5]",
    (t) => attention(t(1, 2, 2, 4), t(1, 2, 5, 4), t(1, 2, 5, 4), t(3, 5)),
  ],
  [
    "ShapeError: attention: bias must broadcast to [1, 2, 2, 5], got [3, 1, 5]",
    (t) => attention(t(1, 2, 2, 4), t(1, 2, 5, 4), t(1, 2, 5, 4), t(2, 5), { bias: t(3, 1, 5) }),
  ],
  [
    "ShapeError: crossEntropy: logits [N, V] and targets [N] are needed, got [2, 3] and [3]",
    (t, ints) => crossEntropy(t(2, 3), ints(3)),
  ],
  ["ShapeError: assign: shapes must agree, got [2] and [3]", (t) => assign(t(2), t(3))],
];

export function errorsSuite(bench: Bench): void {
  describe("errors", () => {
    test.each(MESSAGES)("%s", (message, call) => {
      using _scope = new Scope();
      const t: Make = (...shape) => zeros(shape, "float32", bench.tested);
      const ints: Make = (...shape) => zeros(shape, "int32", bench.tested);
      expect(messageOf(() => call(t, ints))).toBe(message);
    });

    test("a tensor does not hold more or fewer elements than its shape", () => {
      expect(messageOf(() => tensor([1, 2, 3], [2, 2], "float32", bench.tested))).toBe(
        "ShapeError: tensor: shape must hold 3 elements, got [2, 2]",
      );
    });
    test("raw 16-bit floats need their dtype", () => {
      expect(messageOf(() => tensor(new Uint16Array(2), [2], "float32", bench.tested))).toBe(
        "DTypeError: tensor: raw 16-bit floats need the dtype they are in, got float32",
      );
    });
    test("a dtype that the backend does not hold is refused", () => {
      const absent = (["float64"] as const).filter((dtype) => !bench.tested.dtypes.includes(dtype));
      for (const dtype of absent)
        expect(messageOf(() => zeros([1], dtype, bench.tested))).toBe(
          `DTypeError: tensor: the ${bench.tested.name} backend holds ${bench.tested.dtypes.join(", ")}, got ${dtype}`,
        );
    });
    test("tensors of two backends do not mix", () => {
      using _scope = new Scope();
      const [x, y] = [zeros([1], "float32", bench.reference), zeros([1], "float32", bench.tested)];
      expect(messageOf(() => add(x, y))).toBe(
        `BackendError: add: tensors must be on one backend, got reference and ${bench.tested.name}`,
      );
    });
    test("a disposed tensor is named with the op that met it, and frees nothing twice", () => {
      using _scope = new Scope();
      const other = zeros([3, 2], "float32", bench.tested);
      const before = bench.tested.live;
      const x = zeros([2, 3], "float32", bench.tested);
      x.dispose();
      x.dispose();
      const message = (op: string) =>
        `DisposedError: ${op}: a tensor must be alive, got a disposed one of shape [2, 3]; keep it with scope.keep(t)`;
      expect(messageOf(() => add(x, 1))).toBe(message("add"));
      expect(messageOf(() => sum(x))).toBe(message("sum"));
      expect(messageOf(() => matmul(x, other))).toBe(message("matmul"));
      expect(messageOf(() => slice(x, 0, 1))).toBe(message("slice"));
      expect(bench.tested.live).toBe(before);
    });
    test("an op that fails leaves no buffer behind", () => {
      using _scope = new Scope();
      const table = full([2, 3], 1, "float32", bench.tested);
      const ids = intTensor([0, 2], [2], bench.tested);
      const before = bench.tested.live;
      try {
        takeRows(table, ids).dispose();
      } catch (error) {
        expect(String(error)).toBe("IndexError: takeRows: ids must be below 2, got 2");
      }
      expect(bench.tested.live).toBe(before);
    });
  });
}

function messageOf(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    return String(error);
  }
  return "nothing was thrown";
}
