import {
  DisposedError,
  Scope,
  ShapeError,
  type Tensor,
  add,
  cast,
  detach,
  expand,
  floor,
  matmul,
  mul,
  openBackend,
  parameter,
  permute,
  randn,
  relu,
  reshape,
  slice,
  softmax,
  square,
  sub,
  sum,
  tanh,
  tensor,
  zeros,
} from "@neolog/tensor";
import { describe, expect, test, vi } from "vitest";
import { GradientError, backward, noGrad } from "./backward.ts";
import { checkpoint } from "./checkpoint.ts";
import { AdamW } from "./optim/adamw.ts";
import { clipGradNorm } from "./optim/clip.ts";
import { counting, fusedReference } from "./testing/backends.ts";

const leaf = (data: number[], shape = [data.length]): Tensor => parameter(tensor(data, shape));
const gradOf = (p: Tensor): number[] => [...p.grad!.dataSync()];

describe("backward", () => {
  test("sums what arrives over every path", () => {
    const x = leaf([3]);
    const y = mul(x, x);
    backward(sum(add(mul(y, y), y))); // x⁴ + x²
    expect(gradOf(x)).toEqual([4 * 27 + 2 * 3]);
  });

  test("visits a shared subexpression once", async () => {
    const { backend, calls } = await counting("matmul");
    const w = parameter(randn([2, 2], 1, "float64", backend));
    let y = matmul(w, w);
    for (let i = 0; i < 30; i++) y = add(y, y); // 2³⁰ paths, 32 nodes
    backward(sum(y));
    expect(calls()).toBe(3);
  });

  test("walks graphs that are deeper than the call stack", () => {
    const x = leaf([1]);
    let y: Tensor = x;
    for (let i = 0; i < 20_000; i++) y = add(y, 1);
    backward(y);
    expect(gradOf(x)).toEqual([1]);
  });

  test("gives a parameter used twice the sum of both uses", () => {
    const w = leaf([1, 2, 3, 4], [2, 2]);
    const x = tensor([1, -1], [1, 2]);
    backward(sum(matmul(matmul(x, w), permute(w, [1, 0]))));
    // xᵀ·(column sums of w), and (x·w) in each row
    expect(gradOf(w)).toEqual([4 - 2, 6 - 2, -4 - 2, -6 - 2]);
  });

  test("sums broadcasting away", () => {
    const bias = leaf([0, 0, 0]);
    const scalar = leaf([2], []);
    const column = leaf([1, 1], [2, 1]);
    backward(sum(mul(add(expand(column, [2, 3]), bias), scalar)));
    expect([bias, scalar, column].map((p) => p.grad!.shape)).toEqual([[3], [], [2, 1]]);
    expect([bias, scalar, column].map(gradOf)).toEqual([[4, 4, 4], [6], [6, 6]]);
  });

  test("adds to the gradient that is there, which it disposes", () => {
    const x = leaf([2]);
    backward(sum(square(x)));
    const first = x.grad!;
    backward(sum(mul(x, 10)));
    expect(gradOf(x)).toEqual([14]);
    expect(first.disposed).toBe(true);
  });

  test("starts from a given gradient", () => {
    const x = leaf([1, 2]);
    backward(square(x), tensor([1, 10]));
    expect(gradOf(x)).toEqual([2, 40]);
  });

  test("stops at detach and noGrad, and at floor and comparisons", () => {
    const x = leaf([1.5]);
    const frozen = noGrad(() => square(x));
    expect(frozen.tracked).toBe(false);
    backward(sum(add(mul(x, detach(square(x))), mul(x, add(frozen, floor(x))))));
    expect(gradOf(x)).toEqual([2.25 + 2.25 + 1]);
  });

  test("collects the gradient of a 16-bit leaf in float32", () => {
    const x = parameter(cast(tensor([1, 2]), "bfloat16"));
    backward(sum(mul(x, 3)));
    expect(x.grad!.dtype).toBe("float32");
    expect(gradOf(x)).toEqual([3, 3]);
  });

  test("two leaves that got one gradient keep theirs apart", () => {
    const [a, b] = [leaf([1]), leaf([1])];
    backward(add(a, b));
    a.grad!.dispose();
    expect(a.grad).toBeNull();
    expect(gradOf(b)).toEqual([1]);
  });

  test("leaves nothing but the gradients of leaves", async () => {
    const backend = await openBackend("reference");
    const w = parameter(randn([3, 3], 1, "float32", backend));
    {
      using _ = new Scope();
      const x = randn([2, 3], 2, "float32", backend);
      const before = backend.live;
      const y = sum(softmax(tanh(matmul(x, w))));
      const forward = backend.live - before;
      backward(y);
      expect(backend.live - before - forward).toBe(1);
      expect(w.grad).not.toBeNull();
    }
    expect(w.grad).toBeNull();
    expect(backend.live).toBe(1);
  });
});

describe("backward refuses", () => {
  test("a loss that nothing trains", () => {
    expect(() => backward(sum(tensor([1])))).toThrow(GradientError);
    expect(() => backward(sum(tensor([1])))).toThrow(
      "backward: nothing to train: the loss must depend on a tensor with requiresGrad, got one that does not; make it with parameter(t), outside noGrad",
    );
  });
  test("a loss of several elements, and a gradient of another shape", () => {
    const x = leaf([1, 2]);
    expect(() => backward(square(x))).toThrow(ShapeError);
    expect(() => backward(square(x))).toThrow(
      "backward: loss must have one element unless a gradient is given, got [2]",
    );
    expect(() => backward(square(x), tensor([1]))).toThrow(
      "backward: the gradient must have the loss's shape, got [1] and [2]",
    );
  });
  test("a graph, or a part of one, that was used up", () => {
    const x = leaf([1]);
    const h = square(x);
    const loss = sum(mul(h, 2));
    const other = sum(mul(h, x));
    backward(loss);
    expect(() => backward(loss)).toThrow(/^backward: a graph can be used once, got .+; call backward on the sum/);
    expect(() => backward(other)).toThrow(/^backward through mul: a graph can be used once/);
  });
  test("a graph with a hole", () => {
    const x = leaf([1]);
    const block = (): Tensor => {
      using scope = new Scope();
      return scope.keep(relu(square(x)));
    };
    const y = block();
    expect(() => backward(y)).toThrow(DisposedError);
    expect(() => backward(y)).toThrow("backward through relu: a tensor must be alive");
  });
});

describe("frozen weights", () => {
  test("cost no matmul in backward", async () => {
    const { backend, calls } = await counting("matmul");
    const frozen = randn([4, 4], 1, "float64", backend);
    const trained = parameter(randn([4, 4], 2, "float64", backend));
    const x = randn([2, 4], 3, "float64", backend);
    const y = matmul(tanh(matmul(matmul(x, frozen), trained)), frozen);
    const forward = calls();
    backward(sum(y));
    expect(forward).toBe(3);
    expect(calls() - forward).toBe(2); // through the last weight, and into the trained one
  });
});

describe("products of one tensor by frozen weights", () => {
  /** x + x·A + x·B + x·C of x [2, 3, 40], and ∂/∂x for a given gradient. */
  async function found(name: "wasm" | "reference"): Promise<{ gx: number[]; given: number[]; before: number[] }> {
    const backend = await openBackend(name);
    using _scope = new Scope();
    const x = parameter(randn([2, 3, 40], 1, "float32", backend));
    const weights = [2, 3, 4].map((seed) => randn([40, 40], seed, "float32", backend));
    const y = weights.reduce((total, w) => add(total, matmul(mul(x, 2), w)), mul(x, 1));
    const given = randn([2, 3, 40], 5, "float32", backend);
    const before = [...given.dataSync()];
    backward(
      weights.reduce((total, w) => add(total, matmul(x, w)), y),
      given,
    );
    return { gx: gradOf(x), given: [...given.dataSync()], before };
  }

  test("add up in place, and change no gradient that others see", async () => {
    const [wasm, reference] = [await found("wasm"), await found("reference")];
    wasm.gx.forEach((g, i) => expect(g).toBeCloseTo(reference.gx[i]!, 3));
    expect(wasm.given).toEqual(wasm.before);
  });
});

describe("checkpoint", () => {
  const w = randn([3, 3], 1);
  const b = randn([3], 2);
  /** Gradients of the input, a captured parameter and a captured intermediate of a block, with or without recomputation. */
  function gradients(around: (f: (x: Tensor) => Tensor, x: Tensor) => Tensor): number[][] {
    using _ = new Scope();
    const [x, weight, bias] = [randn([2, 3], 3), mul(w, 1), mul(b, 1)].map(parameter) as [Tensor, Tensor, Tensor];
    const shift = tanh(bias); // made outside the block
    const y = around((t) => softmax(add(matmul(t, weight), shift)), x);
    backward(sum(square(sub(y, mul(shift, 0.5)))));
    return [x, weight, bias].map(gradOf);
  }

  test("gives the gradients of the plain block, bit for bit", () => {
    expect(gradients((f, x) => checkpoint((t) => f(t!), x))).toEqual(gradients((f, x) => f(x)));
    expect(gradients((f, x) => checkpoint((t) => checkpoint((s) => f(s!), t!), x))).toEqual(gradients((f, x) => f(x)));
  });
  test("trains parameters that only the block sees", () => {
    const weight = leaf([2]);
    backward(sum(checkpoint((x) => mul(square(weight), x!), tensor([3]))));
    expect(gradOf(weight)).toEqual([12]);
  });
  test("keeps only its result", async () => {
    const backend = await openBackend("reference");
    const x = parameter(randn([4], 1, "float32", backend));
    using _ = new Scope();
    const y = checkpoint((t) => square(tanh(square(tanh(t!)))), x);
    expect(backend.live).toBe(2);
    backward(sum(y));
    expect(x.grad).not.toBeNull();
  });
  test("leaves a block without parameters, and one that does nothing, as they are", () => {
    expect(checkpoint((t) => square(t!), tensor([1])).tracked).toBe(false);
    const x = leaf([3]);
    const h = square(x);
    backward(
      sum(
        add(
          checkpoint((t) => t!, h),
          checkpoint(() => h),
        ),
      ),
    );
    expect(gradOf(x)).toEqual([12]);
    expect(checkpoint(() => x) === x).toBe(false);
  });
});

test("200 training steps in scopes allocate nothing that stays", async () => {
  const backend = await openBackend("cpu");
  const w = parameter(randn([4, 4], 1, "float32", backend));
  const optimizer = new AdamW([w], { lr: 0.05 });
  const losses: number[] = [];
  let live = 0;
  for (let step = 0; step < 200; step++) {
    using scope = new Scope();
    const x = randn([8, 4], step, "float32", backend);
    const loss = sum(
      square(
        sub(
          matmul(x, w),
          reshape(
            matmul(x, tensor([1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1], [4, 4], "float32", backend)),
            [8, 4],
          ),
        ),
      ),
    );
    backward(loss);
    clipGradNorm([w], 1);
    optimizer.step();
    losses.push(await loss.item());
    scope[Symbol.dispose]();
    if (step === 0) live = backend.live;
    expect(backend.live).toBe(live);
  }
  expect(live).toBe(3); // the weight and two averages
  expect(losses.at(-1)).toBeLessThan(0.05 * losses[0]!);
});

test("fused rules leave nothing behind either", async () => {
  const backend = await fusedReference();
  const x = parameter(randn([2, 3], 1, "float64", backend));
  using scope = new Scope();
  backward(sum(square(softmax(x))));
  scope[Symbol.dispose]();
  expect(backend.live).toBe(1);
});

describe("gradients of slices", () => {
  const cut = (x: Tensor, ranges: readonly (readonly [number, number, number?])[]): Tensor =>
    ranges
      .map(([start, end, step], i) => sum(mul(slice(x, 1, start, end, step ?? 1), i + 1)))
      .reduce((y, z) => add(y, z));

  test.each([
    [
      "that lie side by side",
      [
        [0, 2],
        [2, 3],
        [3, 6],
      ],
      [1, 1, 2, 3, 3, 3],
    ],
    [
      "that leave a gap",
      [
        [0, 1],
        [4, 6],
      ],
      [1, 0, 0, 0, 2, 2],
    ],
    [
      "that overlap",
      [
        [0, 3],
        [2, 6],
        [1, 2],
      ],
      [1, 4, 3, 2, 2, 2],
    ],
    [
      "that interleave",
      [
        [0, 5, 2],
        [1, 6, 2],
      ],
      [1, 2, 1, 2, 1, 2],
    ],
  ] as const)("%s are sums of them all", (_, ranges, expected) => {
    const x = parameter(zeros([2, 6]));
    backward(cut(x, ranges));
    expect([...x.grad!.dataSync()]).toEqual([...expected, ...expected]);
  });

  test("add to what comes by another way, before and after", () => {
    const x = parameter(zeros([1, 6]));
    const h = mul(x, 1);
    backward(
      add(
        add(
          sum(h),
          cut(h, [
            [0, 2],
            [2, 6],
          ]),
        ),
        sum(mul(h, 10)),
      ),
    );
    expect([...x.grad!.dataSync()]).toEqual([12, 12, 13, 13, 13, 13]);
  });

  test("take one buffer of the whole", () => {
    const x = parameter(zeros([64, 60]));
    const y = cut(x, [
      [0, 20],
      [20, 40],
      [40, 60],
    ]);
    const allocate = vi.spyOn(x.backend, "allocate");
    backward(y);
    const whole = allocate.mock.calls.filter(([, length]) => length === x.size);
    allocate.mockRestore();
    expect(whole).toHaveLength(1);
  });
});
