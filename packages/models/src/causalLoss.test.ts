import { backward } from "@neolog/autograd";
import { Linear } from "@neolog/nn";
import { Scope, type Tensor, defaultBackend, parameter, zeros } from "@neolog/tensor";
import { describe, expect, test } from "vitest";
import { AutoModelForCausalLM } from "./autoModel.ts";
import type { CausalLM, ModelInputs } from "./causalLm.ts";
import { DECODERS, TINY, TINY_LLAMA, worstExcess } from "./testing.ts";

const input_ids = [
  [1, 2, 3, 4, 5, 6],
  [7, 8, 9, 2, 1, 0],
  [3, 3, 1, 2, 5, 7],
];
const BATCHES: Readonly<Record<string, ModelInputs>> = {
  "all labels": { input_ids, labels: input_ids },
  "some labels": {
    input_ids,
    labels: [
      [1, 2, -100, 4, 5, 6],
      [-100, -100, -100, -100, 1, 0],
      [3, -100, -100, -100, -100, -100],
    ],
  },
  padding: {
    input_ids,
    attention_mask: [
      [1, 1, 1, 1, 1, 1],
      [1, 1, 1, 1, 0, 0],
      [1, 1, 1, 0, 0, 0],
    ],
    labels: [
      [1, 2, 3, 4, 5, 6],
      [7, 8, 9, 2, -100, -100],
      [3, 3, 1, -100, -100, -100],
    ],
  },
};

/** The loss and the gradient of every parameter. */
function gradients(type: string, lossOf: (model: CausalLM) => Tensor): ArrayLike<number>[] {
  using _scope = new Scope();
  const model = AutoModelForCausalLM.fromConfig(TINY[type]!, { seed: 5, std: 0.3 });
  for (const p of model.parameters()) p.requiresGrad = true;
  const loss = lossOf(model);
  backward(loss);
  const found = [loss, ...model.parameters().map((p) => p.grad!)].map((t) => t.dataSync());
  for (const p of model.parameters()) p.dispose();
  return found;
}

describe.each(DECODERS)("%s", (type) => {
  test.each(Object.entries(BATCHES))("loss is forward's, with its gradients: %s", (_, batch) => {
    const expected = gradients(type, (model) => model.forward(batch).loss!);
    gradients(type, (model) => model.loss(batch)).forEach((actual, i) =>
      expect(worstExcess(actual, expected[i]!, { atol: 1e-6, rtol: 1e-5 })).toBeLessThanOrEqual(0),
    );
  });

  test("lastHiddenState is forward's last", () => {
    const model = AutoModelForCausalLM.fromConfig(TINY[type]!, { seed: 5, std: 0.3 });
    const { hidden_states } = model.forward({ input_ids, output_hidden_states: true });
    expect(model.lastHiddenState({ input_ids }).dataSync()).toEqual(hidden_states!.at(-1)!.dataSync());
  });
});

const WIDE = { ...TINY_LLAMA, vocab_size: 20_000 };

test("no tensor of tokens × vocabulary exists on the way", () => {
  const model = AutoModelForCausalLM.fromConfig(WIDE, { seed: 5 });
  const peakOf = (lossOf: () => Tensor): number => {
    using _scope = new Scope();
    const before = defaultBackend().bytes.live;
    const x = lossOf();
    expect(x.size).toBe(1);
    return defaultBackend().bytes.peak - before;
  };
  const long = {
    input_ids: [Array.from({ length: 64 }, (_, i) => i)],
    labels: [Array.from({ length: 64 }, (_, i) => i)],
  };
  const logits = 4 * 64 * WIDE.vocab_size;
  expect(peakOf(() => model.loss(long))).toBeLessThan(logits / 2);
  expect(peakOf(() => model.forward(long).loss!)).toBeGreaterThanOrEqual(logits);
});

test("a bias in the head counts", () => {
  const model = AutoModelForCausalLM.fromConfig({ ...TINY_LLAMA, tie_word_embeddings: false }, { seed: 5 });
  const head = (model as unknown as { lm_head: Linear }).lm_head;
  const plain = model.loss(BATCHES["all labels"]!).dataSync()[0]!;
  head.bias = parameter(zeros([TINY_LLAMA.vocab_size]));
  head.bias.backend.fill(head.bias.view("test"), 0);
  expect(model.loss(BATCHES["all labels"]!).dataSync()[0]).toBeCloseTo(plain, 6);
  head.bias.backend.write(head.bias.view("test").buffer, Float32Array.of(3));
  const shifted = model.loss(BATCHES["all labels"]!).dataSync()[0]!;
  expect(shifted).toBeCloseTo(model.forward(BATCHES["all labels"]!).loss!.dataSync()[0]!, 6);
  expect(Math.abs(shifted - plain)).toBeGreaterThan(1e-3);
});

test("labels are needed", () => {
  const model = AutoModelForCausalLM.fromConfig(TINY_LLAMA, { seed: 5 });
  expect(() => model.loss({ input_ids })).toThrow("loss: labels are needed, got none");
});
