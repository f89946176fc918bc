import { backward } from "@neolog/autograd";
import { Scope, defaultBackend } from "@neolog/tensor";
import { describe, expect, test } from "vitest";
import { accumulateGradients } from "./accumulateGradients.ts";
import { AutoModelForCausalLM } from "./autoModel.ts";
import { DECODERS, TINY, worstExcess } from "./testing.ts";

const rows = [
  { ids: [1, 2, 3, 4, 5, 6], labels: [1, 2, 3, 4, 5, 6] },
  { ids: [7, 8, 9, 2, 1, 0], labels: [-100, -100, -100, -100, 1, 0] },
  { ids: [3, 3, 1, 2, 5, 7], labels: [3, -100, -100, -100, -100, -100] },
  { ids: [4, 9, 2, 8, 3, 1], labels: [4, 9, 2, -100, 3, 1] },
];
const batchOf = (part: typeof rows) => ({
  input_ids: part.map(({ ids }) => ids),
  labels: part.map(({ labels }) => labels),
});
const trainable = (type: string) => {
  const model = AutoModelForCausalLM.fromConfig(TINY[type]!, { seed: 5, std: 0.3 });
  for (const p of model.parameters()) p.requiresGrad = true;
  return model;
};

describe.each(DECODERS)("%s", (type) => {
  test("uneven batches in turn give the loss and gradients of one batch with all rows", () => {
    const [whole, parts] = [trainable(type), trainable(type)];
    const { loss } = whole.forward(batchOf(rows));
    backward(loss!);
    // the third row counts nothing by itself
    const batches = [batchOf(rows.slice(0, 2)), batchOf(rows.slice(2, 3)), batchOf(rows.slice(3))];
    const mean = accumulateGradients(parts, batches, parts.parameters());
    expect(mean.dataSync()[0]).toBeCloseTo(loss!.dataSync()[0]!, 6);
    whole.parameters().forEach((p, i) => {
      const g = parts.parameters()[i]!.grad!.dataSync();
      expect(worstExcess(g, p.grad!.dataSync(), { atol: 1e-6, rtol: 1e-5 })).toBeLessThanOrEqual(0);
    });
  });
});

test("gradients add to those that are there, and nothing else is left", () => {
  const model = trainable("llama");
  const parameters = model.parameters();
  using _scope = new Scope();
  const batches = [batchOf(rows.slice(0, 2)), batchOf(rows.slice(3))];
  accumulateGradients(model, batches, parameters).dispose();
  const once = parameters.map((p) => [...p.grad!.dataSync()]);
  const live = defaultBackend().live;
  accumulateGradients(model, batches, parameters).dispose();
  expect(defaultBackend().live).toBe(live);
  parameters.forEach((p, i) => {
    const doubled = once[i]!.map((g) => 2 * g);
    expect(worstExcess(p.grad!.dataSync(), doubled, { atol: 1e-6, rtol: 1e-5 })).toBeLessThanOrEqual(0);
  });
});

test("refuses batches without a label that counts", () => {
  const model = trainable("llama");
  expect(() => accumulateGradients(model, [batchOf(rows.slice(2, 3))], model.parameters())).toThrow(
    "accumulateGradients: a label past the first column must count, got none other than -100",
  );
  expect(() => accumulateGradients(model, [], model.parameters())).toThrow("accumulateGradients:");
});
