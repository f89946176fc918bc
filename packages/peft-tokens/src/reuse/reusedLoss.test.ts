import { worstExcess } from "@neolog/models/testing";
import { Scope, type Tensor } from "@neolog/tensor";
import { describe, expect, test } from "vitest";
import { ReusedLoss, TrainableTokensConfig, getPeftModel } from "../index.ts";
import { type BaseName, makeBase, setRows } from "../testing.ts";
import type { PeftModel } from "../model.ts";

const BATCH = {
  input_ids: [
    [0, 2, 3, 7, 4, 5, 1, 6],
    [2, 3, 4, 5, 6, 8, 9, 7],
    [7, 2, 3, 4, 5, 6, 8, 9],
    [2, 3, 4, 5, 6, 8, 9, 3],
  ],
  labels: [
    [0, 2, 3, 7, 4, 5, 1, 6],
    [2, 3, 4, -100, 6, 8, 9, 7],
    [7, 2, 3, 4, -100, 6, 8, 9],
    [-100, 3, 4, 5, 6, 8, 9, 3],
  ],
};
const PADDED = {
  ...BATCH,
  attention_mask: [
    [1, 1, 1, 1, 1, 1, 0, 0],
    [0, 0, 1, 1, 1, 1, 1, 1],
    [1, 1, 1, 1, 1, 1, 1, 1],
    [0, 1, 1, 1, 1, 1, 0, 0],
  ],
  labels: [
    [0, 2, 3, 7, 4, 5, -100, -100],
    [-100, -100, -100, 5, 6, -100, 9, 7],
    [7, 2, 3, 4, -100, 6, 8, 9],
    [-100, -100, 4, 5, 6, 8, -100, -100],
  ],
};

function found(peft: PeftModel, lossOf: () => Tensor): ArrayLike<number>[] {
  using _scope = new Scope();
  const loss = lossOf();
  const trained = peft.parameters().filter((t) => t.requiresGrad);
  peft.backward(loss);
  const values = [loss, ...trained.map((t) => t.grad!)].map((t) => t.dataSync());
  for (const t of trained) t.grad = null;
  return values;
}
const BASES: BaseName[] = [
  "gpt2",
  "gpt2 untied",
  "llama",
  "llama tied",
  "gemma2, tied",
  "gemma2, untied",
  "gemma3_text, tied",
  "opt, tied",
  "gpt_neox, untied",
  "phi3, untied",
];

describe.each(BASES)("%s", (name) => {
  test.each([
    ["full rows", BATCH],
    ["padding on either side", PADDED],
  ] as const)("%s: value and gradients are the plain ones, kept or not", (_, batch) => {
    for (const maxBytes of [2 ** 20, 700, 0]) {
      const base = makeBase(name);
      const peft = getPeftModel(base, new TrainableTokensConfig({ token_indices: [7, 1] }));
      setRows(peft, "default");
      const reuse = new ReusedLoss(peft, { maxBytes });
      for (let step = 0; step < 3; step++) {
        setRows(peft, "default", (slot, column) => Math.sin(7 * slot + column + step));
        const expected = found(peft, () => peft.loss(batch));
        const actual = found(peft, () => reuse.loss(batch));
        actual.forEach((values, i) =>
          expect(worstExcess(values, expected[i]!, { atol: 1e-6, rtol: 1e-5 })).toBeLessThanOrEqual(0),
        );
      }
      const { report } = reuse;
      expect(report).toMatchObject({ on: true, why: null });
      if (maxBytes === 2 ** 20) expect(report.hits).toBeGreaterThan(0);
      reuse.dispose();
    }
  });
});
