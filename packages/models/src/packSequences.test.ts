import { backward } from "@neolog/autograd";
import { stateDict } from "@neolog/nn";
import { Scope } from "@neolog/tensor";
import { describe, expect, test } from "vitest";
import { AutoModelForCausalLM } from "./autoModel.ts";
import { packSequences } from "./packSequences.ts";
import { DECODERS, TINY, worstExcess } from "./testing.ts";

const TEXTS = [[1, 2, 3, 4, 5, 6], [7], [8, 9, 10, 3], [4, 2]];

test("a row holds the ids, positions that begin again, and labels but for each first token", () => {
  expect(packSequences([{ input_ids: [5, 6, 7] }, { input_ids: [8, 9], labels: [-100, 4] }])).toEqual({
    input_ids: [[5, 6, 7, 8, 9]],
    position_ids: [[0, 1, 2, 0, 1]],
    labels: [[-100, 6, 7, -100, 4]],
  });
  expect(() => packSequences([{ input_ids: [1, 2], labels: [1] }])).toThrow(
    "packSequences: a text needs a label for each id, got [2] and [1]",
  );
});

describe.each(DECODERS)("%s, packed", (type) => {
  const build = () => AutoModelForCausalLM.fromConfig(TINY[type]!, { seed: 5, std: 0.3 });

  test("gives each text the logits that it has alone, bit for bit", () => {
    const model = build();
    const packed = model.forward(packSequences(TEXTS.map((input_ids) => ({ input_ids })))).logits;
    const alone = TEXTS.flatMap((ids) => [...model.forward({ input_ids: [ids] }).logits.dataSync()]);
    expect([...packed.dataSync()]).toEqual(alone);
  });

  test("gives the gradients of the mean over all labels", () => {
    const gradients = (rows: { input_ids: number[][]; position_ids?: number[][]; labels: number[][] }[]) => {
      const model = build();
      for (const p of model.parameters()) p.requiresGrad = true;
      for (const row of rows) backward(model.forward(row).loss!);
      return new Map([...stateDict(model)].map(([key, p]) => [key, p.grad!.dataSync()]));
    };
    using _scope = new Scope();
    const packed = gradients([packSequences([{ input_ids: TEXTS[0]! }, { input_ids: TEXTS[2]! }])]);
    const labels = [TEXTS[0]!, [...TEXTS[2]!, 0, 0]];
    const input_ids = labels.map((ids) => [...ids]);
    labels[1]!.fill(-100, 4);
    const padded = gradients([{ input_ids, labels }]);
    for (const [key, g] of padded)
      expect(worstExcess(packed.get(key)!, g, { atol: 1e-5, rtol: 1e-4 }), key).toBeLessThanOrEqual(0);
  });
});
