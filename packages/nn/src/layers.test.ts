import { backward } from "@neolog/autograd";
import { mul, sum, tensor } from "@neolog/tensor";
import { describe, expect, test } from "vitest";
import { ACTIVATIONS } from "./activation.ts";
import { Conv1D } from "./conv1d.ts";
import { Embedding, TiedHead } from "./embedding.ts";
import { LayerNorm, layerNorm } from "./layerNorm.ts";
import { Linear } from "./linear.ts";
import { GemmaRmsNorm, RmsNorm } from "./rmsNorm.ts";

const table = () => tensor([1, 2, 3, 4, 5, 6, 7, 8], [4, 2]);

describe("Embedding", () => {
  test("looks rows up, in order and repeatedly", () => {
    expect([...new Embedding(table()).forward(Int32Array.of(3, 0, 3)).dataSync()]).toEqual([7, 8, 1, 2, 7, 8]);
  });

  test.each([4, -1])("refuses id %d", (id) => {
    expect(() => new Embedding(table()).forward(Int32Array.of(0, id))).toThrow(
      `Embedding: token ids must be in [0, 4), got ${id}`,
    );
  });

  test("gradients add up per row; lookups of the padding row give none", () => {
    const gradient = (paddingIdx: number | null): number[] => {
      const layer = new Embedding(table(), paddingIdx);
      layer.weight.requiresGrad = true;
      backward(sum(layer.forward(Int32Array.of(3, 0, 3))));
      return [...layer.weight.grad!.dataSync()];
    };
    expect(gradient(null)).toEqual([1, 1, 0, 0, 0, 0, 2, 2]);
    expect(gradient(3)).toEqual([1, 1, 0, 0, 0, 0, 0, 0]);
  });

  test("the padding row still learns through a tied head, as in torch", () => {
    const layer = new Embedding(table(), 3);
    layer.weight.requiresGrad = true;
    const head = new TiedHead(() => layer);
    backward(sum(mul(head.forward(tensor([1, 10], [1, 2])), tensor([0, 0, 0, 2], [1, 4]))));
    expect([...layer.weight.grad!.dataSync()]).toEqual([0, 0, 0, 0, 0, 0, 2, 20]);
  });

  test("a tied head asks for the embedding at each call, so that adapters can come and go", () => {
    let current = new Embedding(table());
    const head = new TiedHead(() => current);
    const x = tensor([1, 0], [1, 2]);
    expect([...head.forward(x).dataSync()]).toEqual([1, 3, 5, 7]);
    current = new Embedding(tensor([9, 9], [1, 2]));
    expect([...head.forward(x).dataSync()]).toEqual([9]);
    expect(head.parameters()).toEqual([]);
  });
});

describe("layers", () => {
  const x = tensor([1, -2, 3, 0.5], [2, 2]);

  test("Linear is x·Wᵀ + b, Conv1D x·W + b", () => {
    const weight = tensor([1, 2, 3, 4, 5, 6], [3, 2]);
    const bias = tensor([0.5, 0, -1]);
    expect([...new Linear(weight, bias).forward(x).dataSync()]).toEqual([-2.5, -5, -8, 4.5, 11, 17]);
    expect([...new Linear(weight).forward(x).dataSync()]).toEqual([-3, -5, -7, 4, 11, 18]);
    const stored = tensor([1, 3, 5, 2, 4, 6], [2, 3]);
    expect([...new Conv1D(stored, bias).forward(x).dataSync()]).toEqual([-2.5, -5, -8, 4.5, 11, 17]);
  });

  test("RmsNorm divides by the root of the mean square, LayerNorm standardises", () => {
    const weight = tensor([1, 2]);
    const firstRow = (layer: RmsNorm | LayerNorm): number[] => Array.from(layer.forward(x).dataSync().slice(0, 2));
    const close = (values: number[]): unknown[] => values.map((value) => expect.closeTo(value, 6) as unknown);
    const rms = Math.sqrt(2.5 + 0.1);
    expect(firstRow(new RmsNorm(weight, 0.1))).toEqual(close([1 / rms, -4 / rms]));
    const distance = tensor([0, 1]);
    expect([...new GemmaRmsNorm(distance, 0.1).forward(x).dataSync()]).toEqual([
      ...new RmsNorm(weight, 0.1).forward(x).dataSync(),
    ]);
    const deviation = Math.sqrt(2.25 + 0.1);
    const expected = [1.5 / deviation + 3, -3 / deviation + 4];
    expect(firstRow(new LayerNorm(weight, tensor([3, 4]), 0.1))).toEqual(close(expected));
    expect(firstRow(new LayerNorm(null, null, 0.1))).toEqual(close([1.5 / deviation, -1.5 / deviation]));
    expect(layerNorm(2, 0.1, false).parameters()).toEqual([]);
  });
});

// The defining formulas at x = 1: Φ(1), its tanh approximation, σ(1.702), σ(1), tanh(1).
test.each([
  ["gelu", 0.84134475],
  ["gelu_new", 0.841192],
  ["gelu_pytorch_tanh", 0.841192],
  ["gelu_fast", 0.841192],
  ["quick_gelu", 0.84579575],
  ["relu", 1],
  ["sigmoid", 0.73105858],
  ["silu", 0.73105858],
  ["swish", 0.73105858],
  ["tanh", 0.76159416],
])("%s(1) = %d", (name, expected) => {
  expect(ACTIVATIONS[name]!(tensor([1])).dataSync()[0]).toBeCloseTo(expected, 6);
});

test("every activation is tested", () => {
  expect(Object.keys(ACTIVATIONS)).toHaveLength(10);
});
