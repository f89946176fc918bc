import {
  type Backend,
  type DType,
  IndexError,
  Scope,
  type Tensor,
  add,
  cast,
  crossEntropy,
  detach,
  div,
  frozenColumns,
  intTensor,
  linearCrossEntropy,
  matmulT,
  mul,
  ones,
  openBackend,
  overrideColumns,
  parameter,
  randn,
  slice,
  takeRows,
  tanh,
  zeros,
} from "@neolog/tensor";
import { expectClose } from "@neolog/tensor/testing";
import { describe, expect, test } from "vitest";
import { backward, noGrad } from "./backward.ts";

const reference = await openBackend("reference");
const backends: readonly Backend[] = [reference, await openBackend("cpu"), await openBackend("wasm", { threads: 2 })];

/** More than two chunks of the vocabulary. */
const [N, D, V] = [9, 8, 5000];
const COLUMNS = Int32Array.of(4999, 3, 2048);
const TARGETS = [0, 3, -100, 2047, 2048, 4096, 4999, 77, -100];

interface Case {
  readonly softcap: number | null;
  readonly overridden: boolean;
  readonly weightTrained: boolean;
}

function made(backend: Backend, { softcap, overridden, weightTrained }: Case) {
  const dtype: DType = backend === reference ? "float64" : "float32";
  const random = (shape: readonly number[], seed: number): Tensor =>
    cast(randn(shape, seed, "float32", backend), dtype);
  const hidden = parameter(random([N, D], 1));
  const weight = weightTrained ? parameter(random([V, D], 2)) : random([V, D], 2);
  const rows = overridden ? parameter(random([COLUMNS.length, D], 3)) : null;
  const targets = intTensor(TARGETS, [N], backend);
  return { hidden, weight, rows, targets, options: { softcap, override: rows && { rows, columns: COLUMNS } } };
}

/** The loss, three times over, and the gradients of hidden, weight and overriding rows; [] where there is none. */
function results(backend: Backend, fused: boolean, each: Case): ArrayLike<number>[] {
  using _scope = new Scope();
  const { hidden, weight, rows, targets, options } = made(backend, each);
  const { softcap } = options;
  const composite = (): Tensor => {
    const product = matmulT(hidden, weight);
    const raw = rows ? overrideColumns(product, matmulT(hidden, rows), COLUMNS) : product;
    return crossEntropy(softcap === null ? raw : mul(tanh(div(raw, softcap)), softcap), targets);
  };
  const loss = mul(fused ? linearCrossEntropy(hidden, weight, targets, options) : composite(), 3);
  backward(loss);
  return [loss, hidden.grad, weight.grad, rows?.grad].map((t) => t?.dataSync() ?? []);
}

describe("linearCrossEntropy", () => {
  const cases: readonly Case[] = [null, 2].flatMap((softcap) =>
    [false, true].flatMap((overridden) =>
      [false, true].map((weightTrained) => ({ softcap, overridden, weightTrained })),
    ),
  );
  test.each(cases)("has the loss and the gradients of its composite: %o", (each) => {
    const expected = results(reference, false, each);
    for (const backend of backends) {
      // float32: sums of 5,000 exponentials, a few roundings each, relative to gradients of order 0.1
      const tolerance = backend === reference ? { absolute: 1e-12 } : { relative: 2e-5, absolute: 2e-6 };
      results(backend, true, each).forEach((actual, i) => expectClose(actual, expected[i]!, tolerance));
    }
  });

  test.each(cases)("gives the loss of each row, and gradients for what each gets: %o", (each) => {
    for (const backend of backends) {
      using _scope = new Scope();
      const { hidden, weight, rows, targets, options } = made(backend, each);
      const incoming = cast(randn([N], 4, "float32", backend), hidden.dtype);
      const gradients = (): ArrayLike<number>[] => {
        const found = [hidden, weight, ...(rows ? [rows] : [])].map((t) => [...(t.grad?.dataSync() ?? [])]);
        for (const t of [hidden, weight, ...(rows ? [rows] : [])]) t.grad = null;
        return found;
      };
      const losses = linearCrossEntropy(hidden, weight, targets, { ...options, reduction: "none" });
      const values = losses.dataSync();
      backward(losses, incoming);
      const actual = gradients();
      // a row at a time, since the mean of one is its loss
      const alone = Array.from(TARGETS, (target, i) =>
        target === -100
          ? null
          : linearCrossEntropy(slice(hidden, 0, i, i + 1), weight, slice(targets, 0, i, i + 1), options),
      );
      expectClose(
        values,
        alone.map((loss) => loss?.dataSync()[0] ?? 0),
        { absolute: 0 },
      );
      const g = incoming.dataSync();
      backward(
        alone.reduce<Tensor>(
          (sum, loss, i) => (loss ? add(sum, mul(loss, g[i]!)) : sum),
          zeros([], hidden.dtype, backend),
        ),
      );
      gradients().forEach((expected, i) =>
        expectClose(actual[i]!, expected, { relative: 1e-5, absolute: backend === reference ? 1e-12 : 2e-6 }),
      );
    }
  });
  test.each([null, 2])("finds the same bits when frozen columns were looked at before: softcap %s", (softcap) => {
    for (const backend of backends) {
      using _scope = new Scope();
      const {
        hidden: tracked,
        weight,
        rows,
        targets,
      } = made(backend, { softcap, overridden: true, weightTrained: false });
      const hidden = detach(tracked);
      const override = { rows: rows!, columns: COLUMNS };
      const [plain, again] = [null, frozenColumns(hidden, weight, targets, COLUMNS, { softcap })].map((frozen) => {
        rows!.grad = null;
        const loss = linearCrossEntropy(hidden, weight, targets, { softcap, override, frozen, reduction: "none" });
        backward(loss, ones([N], loss.dtype, backend));
        return [loss.dataSync(), rows!.grad!.dataSync()];
      });
      expect(again).toEqual(plain);
      expect(() =>
        linearCrossEntropy(tracked, weight, targets, { frozen: frozenColumns(hidden, weight, targets, COLUMNS) }),
      ).toThrow("linearCrossEntropy with frozen columns: inputs must not be tracked");
    }
  });
  test("holds where every column of a chunk is overridden", () => {
    using _scope = new Scope();
    const [hidden, weight] = [randn([2, 3], 1, "float32", reference), randn([2, 3], 2, "float32", reference)];
    const targets = intTensor([0, 1], [2], reference);
    const columns = Int32Array.of(1, 0);
    const override = { rows: randn([2, 3], 3, "float32", reference), columns };
    const loss = linearCrossEntropy(hidden, weight, targets, { override });
    expectClose(loss.dataSync(), crossEntropy(matmulT(hidden, takeRows(override.rows, columns)), targets).dataSync(), {
      absolute: 1e-12,
    });
    const frozen = frozenColumns(hidden, weight, targets, columns);
    expect(linearCrossEntropy(hidden, weight, targets, { override, frozen }).dataSync()).toEqual(loss.dataSync());
  });

  test("holds a chunk of the logits at a time, and nothing afterwards", async () => {
    for (const backend of [await openBackend("cpu"), await openBackend("wasm", { threads: 1 })]) {
      {
        using _scope = new Scope();
        const [tokens, vocab] = [64, 40_000];
        const hidden = parameter(randn([tokens, 4], 1, "float32", backend));
        const weight = randn([vocab, 4], 2, "float32", backend);
        const targets = intTensor(
          Array.from({ length: tokens }, (_, i) => i * 600),
          [tokens],
          backend,
        );
        const before = backend.bytes.live;
        backward(linearCrossEntropy(hidden, weight, targets));
        expect(backend.bytes.peak - before).toBeLessThan((4 * tokens * vocab) / 4);
        hidden.dispose();
      }
      expect(backend.live).toBe(0);
    }
  });
  test("gives the same bytes on one thread and on two", async () => {
    const [one, two] = await Promise.all(
      [1, 2].map(async (threads) => {
        using _scope = new Scope();
        const backend = await openBackend("wasm", { threads });
        const hidden = parameter(randn([70, 64], 1, "float32", backend));
        const weight = randn([V, 64], 2, "float32", backend);
        const rows = parameter(randn([COLUMNS.length, 64], 3, "float32", backend));
        const targets = intTensor(
          Array.from({ length: 70 }, (_, i) => i * 71),
          [70],
          backend,
        );
        const loss = linearCrossEntropy(hidden, weight, targets, { softcap: 30, override: { rows, columns: COLUMNS } });
        backward(loss);
        return [loss, hidden.grad!, rows.grad!].map((t) => t.dataSync());
      }),
    );
    expect(two).toEqual(one);
  });
  test("takes an override of no rows", () => {
    using _scope = new Scope();
    const [hidden, weight] = [randn([2, 3], 1, "float32", reference), randn([4, 3], 2, "float32", reference)];
    const targets = intTensor([0, 1], [2], reference);
    const override = { rows: zeros([0, 3], "float32", reference), columns: new Int32Array() };
    expect(linearCrossEntropy(hidden, weight, targets, { override }).dataSync()).toEqual(
      linearCrossEntropy(hidden, weight, targets).dataSync(),
    );
  });
  test("computes no gradient where none is wanted", () => {
    using _scope = new Scope();
    const hidden = parameter(randn([2, 3], 1, "float32", reference));
    const weight = randn([4, 3], 2, "float32", reference);
    const targets = intTensor([0, 1], [2], reference);
    expect(noGrad(() => linearCrossEntropy(hidden, weight, targets)).source).toBeNull();
    const frozen = linearCrossEntropy(randn([2, 3], 1, "float32", reference), parameter(weight), targets);
    expect(frozen.source?.attrs).toMatchObject({ hiddenGrad: null, rowsGrad: null });
  });
  test("refuses shapes that do not fit, and targets that are no rows", () => {
    using _scope = new Scope();
    const x = (...shape: number[]): Tensor => randn(shape, 1, "float32", reference);
    const ids = (...data: number[]): Tensor => intTensor(data, [data.length], reference);
    expect(() => linearCrossEntropy(x(2, 3), x(4, 2), ids(0, 1))).toThrow(
      "linearCrossEntropy: hidden [N, D], weight [V, D] and targets [N] are needed, got [2, 3] and [4, 2] and [2]",
    );
    expect(() =>
      linearCrossEntropy(x(2, 3), x(4, 3), ids(0, 1), { override: { rows: x(2, 3), columns: Int32Array.of(1) } }),
    ).toThrow("linearCrossEntropy: overriding rows must be [1, 3], got [2, 3]");
    expect(() =>
      linearCrossEntropy(x(2, 3), x(4, 3), ids(0, 1), { override: { rows: x(1, 3), columns: Int32Array.of(4) } }),
    ).toThrow(new IndexError("linearCrossEntropy", "columns must be in [0, 4)", 4));
    expect(() => linearCrossEntropy(x(2, 3), x(4, 3), ids(0, 4))).toThrow(
      new IndexError("linearCrossEntropy", "targets must be in [0, 4) or -100", 4),
    );
  });
});
