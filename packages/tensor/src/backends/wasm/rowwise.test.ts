import { afterAll, describe, expect, test } from "vitest";
import type { Backend } from "../../backend.ts";
import { intTensor, randn, tensor } from "../../create.ts";
import type { DType } from "../../dtype.ts";
import { IndexError, type Shape } from "../../errors.ts";
import { crossEntropy, crossEntropyGrad } from "../../ops/loss.ts";
import { cast, slice } from "../../ops/movement.ts";
import { layerNorm, layerNormGrad, rmsNorm, rmsNormGrad } from "../../ops/norm.ts";
import { rope } from "../../ops/rope.ts";
import { logSoftmax, logSoftmaxGrad, softmax, softmaxGrad } from "../../ops/softmax.ts";
import { Scope } from "../../scope.ts";
import type { Tensor } from "../../tensor.ts";
import { type Tolerance, expectClose, sameBytes } from "../../testing/matchers.ts";
import { openBackend } from "../open.ts";

const reference = await openBackend("reference");
/** One thread, two threads, and two with fused multiply-add where Node has it behind a flag; flags last, they stay on. */
const backends: readonly (readonly [string, Backend])[] = [
  ["1 thread", await openBackend("wasm", { threads: 1 })],
  ["2 threads", await openBackend("wasm", { threads: 2 })],
  ["2 threads, fused multiply-add", await openBackend("wasm", { threads: 2, v8Flags: true })],
];
/** Around multiples of one vector, four vectors, and of what a model has. */
const WIDTHS = [1, 2, 3, 4, 5, 7, 8, 12, 15, 16, 17, 19, 31, 32, 33, 63, 64, 65, 128, 257, 768, 2304, 4096, 4099];
const ROWS = 3;

/** Makes the same numbers on every backend: float64 on the reference backend. */
type Make = (shape: Shape, seed: number, dtype?: DType) => Tensor;
type Values = (data: ArrayLike<number>, shape: Shape) => Tensor;

interface On {
  readonly random: Make;
  readonly values: Values;
  readonly ints: (data: readonly number[]) => Tensor;
}

const on = (backend: Backend): On => ({
  random: (shape, seed, dtype = "float32") => {
    const x = cast(randn(shape, seed, "float32", backend), dtype);
    return backend === reference ? cast(x, "float64") : x;
  },
  values: (data, shape) => tensor(Array.from(data), shape, backend === reference ? "float64" : "float32", backend),
  ints: (data) => intTensor(data, [data.length], backend),
});

function results(run: (make: On) => Tensor): { name: string; actual: Float32Array; expected: Float64Array }[] {
  using _scope = new Scope();
  const expected = run(on(reference)).dataSync() as Float64Array;
  return backends.map(([name, backend]) => ({ name, actual: run(on(backend)).dataSync() as Float32Array, expected }));
}

/** All backends are as close to float64 as `tolerance` says; those with the same arithmetic give the same bytes. */
function check(run: (make: On) => Tensor, tolerance: Tolerance): void {
  const [one, two, madd] = results(run);
  for (const { name, actual, expected } of [one!, two!, madd!]) {
    try {
      expectClose(actual, expected, tolerance);
    } catch (error) {
      throw new Error(`on ${name}: ${(error as Error).message}`, { cause: error });
    }
  }
  expect(sameBytes(one!.actual, two!.actual)).toBe(true);
}

/**
 * float32 sums of n terms in 16 chains and a tree: about √(n/16) roundings of 2⁻²⁴ off, a few for the widths here; then a handful of
 * roundings for each element. Values are of order 1.
 */
const CLOSE: Tolerance = { relative: 2e-6, absolute: 1e-6 };

const SPECIALS = [NaN, Infinity, -Infinity, 3e38, -3e38, 1e-38, 0, -0, 1].map(Math.fround);
/** Random rows, each with one special number at a place of its own. */
function withSpecials({ random, values }: On, width: number, specials: readonly number[] = SPECIALS): Tensor {
  const shape = [specials.length, width];
  const data = Array.from(random(shape, 3).dataSync());
  specials.forEach((special, row) => {
    data[row * width + ((row * 7919) % width)] = special;
  });
  return values(data, shape);
}

/** Two elements that happen to be close make a large scale of a small difference. */
const EPS = 1e-2;

test.each(WIDTHS)("layerNorm of rows of one number is the bias, to the bit, width %i", (width) => {
  const numbers = [-0.8383357524871826, 0.0546875, 0.1, 3.3, 1e3].map(Math.fround);
  check(({ values, random }) => {
    const rows = numbers.flatMap((x) => Array.from({ length: width }, () => x));
    return layerNorm(values(rows, [numbers.length, width]), random([width], 1), random([width], 2), 1e-5);
  }, {});
});

describe("kernels of rows agree with float64 at every width", () => {
  const OPS: Readonly<Record<string, (make: On, shape: Shape) => Tensor>> = {
    softmax: ({ random }, shape) => softmax(random(shape, 1)),
    logSoftmax: ({ random }, shape) => logSoftmax(random(shape, 1)),
    softmaxGrad: ({ random }, shape) => softmaxGrad(softmax(random(shape, 1)), random(shape, 2)),
    logSoftmaxGrad: ({ random }, shape) => logSoftmaxGrad(logSoftmax(random(shape, 1)), random(shape, 2)),
    rmsNorm: ({ random }, shape) => rmsNorm(random(shape, 1), random([shape[1]!], 2), EPS),
    rmsNormGrad: ({ random }, shape) => rmsNormGrad(random(shape, 1), random([shape[1]!], 2), random(shape, 3), EPS),
    "rmsNorm, bfloat16 weight": ({ random }, shape) =>
      rmsNorm(random(shape, 1), random([shape[1]!], 2, "bfloat16"), EPS),
    layerNorm: ({ random }, shape) => layerNorm(random(shape, 1), random([shape[1]!], 2), random([shape[1]!], 3), EPS),
    layerNormGrad: ({ random }, shape) =>
      layerNormGrad(random(shape, 1), random([shape[1]!], 2), random(shape, 3), EPS),
    crossEntropy: ({ random, ints }, shape) => crossEntropy(random(shape, 1), ints(targetsOf(shape))),
    crossEntropyGrad: ({ random, ints, values }, shape) =>
      crossEntropyGrad(random(shape, 1), ints(targetsOf(shape)), values([0.5], [])),
  };
  /** Every third row is ignored. */
  const targetsOf = ([N, V]: Shape): number[] =>
    Array.from({ length: N! }, (_, i) => (i % 3 === 1 ? -100 : (i * 7919) % V!));

  test.each(Object.keys(OPS))("%s", (name) => {
    for (const width of WIDTHS) check((make) => OPS[name]!(make, [ROWS, width]), CLOSE);
    check((make) => OPS[name]!(make, [300, 257]), CLOSE); // many rows: shared among threads
    check((make) => OPS[name]!(make, [2, 50_257]), CLOSE);
  });
});

describe("special numbers go through as in float64", () => {
  const OPS: Readonly<Record<string, (make: On, width: number) => Tensor>> = {
    softmax: (make, width) => softmax(withSpecials(make, width)),
    logSoftmax: (make, width) => logSoftmax(withSpecials(make, width)),
    softmaxGrad: (make, width) =>
      softmaxGrad(softmax(make.random([SPECIALS.length, width], 1)), withSpecials(make, width)),
    crossEntropyGrad: (make, width) =>
      crossEntropyGrad(
        withSpecials(make, width),
        make.ints([0, 0, 0, 0, -100, 0, 0, 0, 0]),
        make.values([Math.fround(0.7)], []),
      ),
  };
  test.each(Object.keys(OPS))("%s", (name) => {
    for (const width of [1, 3, 4, 16, 21, 64, 300]) check((make) => OPS[name]!(make, width), CLOSE);
  });

  const NOT_FINITE = [NaN, Infinity, -Infinity];
  const NORMS: Readonly<Record<string, (x: Tensor, { random }: On, width: number) => Tensor>> = {
    rmsNorm: (x, { random }, width) => rmsNorm(x, random([width], 1), EPS),
    layerNorm: (x, { random }, width) => layerNorm(x, random([width], 1), random([width], 2), EPS),
    rmsNormGrad: (x, { random }, width) => rmsNormGrad(x, random([width], 1), random([3, width], 2), EPS),
    layerNormGrad: (x, { random }, width) => layerNormGrad(x, random([width], 1), random([3, width], 2), EPS),
  };
  test.each(Object.keys(NORMS))("%s of NaN and infinities", (name) => {
    for (const width of [1, 3, 4, 16, 21, 64, 300])
      check((make) => NORMS[name]!(withSpecials(make, width, NOT_FINITE), make, width), CLOSE);
  });

  test("crossEntropy is NaN for a row with NaN, and for no row at all", () => {
    for (const data of [
      [1, NaN, 2, 1, 1, 1],
      [1, Infinity, 2, 1, 1, 1],
    ])
      check(({ values, ints }) => crossEntropy(values(data, [2, 3]), ints([0, 1])), {});
    check(({ values, ints }) => crossEntropy(values([1, 2], [1, 2]), ints([-100])), {});
    check(({ values, ints }) => crossEntropy(values([1, NaN, 2, 1, 1, 1], [2, 3]), ints([-100, 1])), CLOSE);
  });
});

describe("rope", () => {
  const lead = [2, 3, 7];
  test.each([
    ["of halves", false],
    ["interleaved", true],
  ])("%s, angles over any axes", (_, interleaved) => {
    for (const half of [1, 2, 3, 4, 5, 7, 8, 9, 16, 31, 32, 33, 64]) {
      for (const angles of [[], [7], [1, 7], [3, 1], [2, 1, 7], [2, 1, 1], lead]) {
        check(
          ({ random }) =>
            rope(
              random([...lead, 2 * half], 1),
              random([...angles, half], 2),
              random([...angles, half], 3),
              interleaved,
            ),
          // two products and their sum, each rounded; they may cancel
          { relative: 2e-7, absolute: 1e-6 },
        );
      }
    }
  });
});

describe("kernels of rows", () => {
  test("give the bytes of a row whatever lies beside it", () => {
    const [, backend] = backends[2]!;
    const ops: ((x: Tensor) => Tensor)[] = [
      (x) => softmax(x),
      (x) => logSoftmax(x),
      (x) => softmaxGrad(x, x),
      (x) => logSoftmaxGrad(x, x),
      (x) => rmsNormGrad(x, randn([x.shape[1]!], 5, "float32", backend), x, EPS),
      (x) => layerNormGrad(x, randn([x.shape[1]!], 5, "float32", backend), x, EPS),
    ];
    for (const width of [5, 64, 257, 768]) {
      for (const op of ops) {
        using _scope = new Scope();
        const x = randn([400, width], width, "float32", backend);
        const all = slice(op(x), 0, 17, 19).dataSync();
        expect(sameBytes(all, op(slice(x, 0, 17, 19)).dataSync())).toBe(true);
      }
    }
  });
  test("refuse a target that is no column", () => {
    for (const [, backend] of backends) {
      using _scope = new Scope();
      const logits = randn([2, 3], 1, "float32", backend);
      const [targets, g] = [intTensor([0, 3], [2], backend), tensor([1], [], "float32", backend)];
      const wrong = (op: string) => new IndexError(op, "targets must be in [0, 3) or -100", 3);
      expect(() => crossEntropy(logits, targets)).toThrow(wrong("crossEntropy"));
      expect(() => crossEntropyGrad(logits, targets, g)).toThrow(wrong("crossEntropyGrad"));
    }
  });
  test("leave nothing behind, also where operands are converted", () => {
    for (const [, backend] of backends) {
      const before = backend.live;
      {
        using _scope = new Scope();
        const weight = cast(randn([64], 1, "float32", backend), "bfloat16");
        rmsNormGrad(randn([3, 64], 1, "float32", backend), weight, randn([3, 64], 2, "float32", backend), EPS);
        crossEntropy(randn([2, 64], 1, "float32", backend), intTensor([1, 2], [2], backend));
      }
      expect(backend.live).toBe(before);
    }
  });

  afterAll(() => {
    for (const [, backend] of backends) expect(backend.live).toBe(0);
  });
});
