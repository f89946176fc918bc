import { backward, noGrad } from "@neolog/autograd";
import { stateDict } from "@neolog/nn";
import { Scope, defaultBackend } from "@neolog/tensor";
import { describe, expect, test } from "vitest";
import { AutoModelForCausalLM } from "./autoModel.ts";
import { KvCache } from "./kvCache.ts";
import { DECODERS, TINY } from "./testing.ts";

const batch = {
  input_ids: [[1, 2, 3, 4, 5], [0, 0, 6, 7, 8]], // prettier-ignore
  attention_mask: [[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]], // prettier-ignore
  labels: [[1, 2, 3, 4, 5], [-100, -100, 6, 7, 8]], // prettier-ignore
};

describe.each(DECODERS)("%s, blocks computed again", (type) => {
  const build = (gradientCheckpointing: boolean) => {
    const model = AutoModelForCausalLM.fromConfig(TINY[type]!, { seed: 5, std: 0.3 });
    model.gradientCheckpointing = gradientCheckpointing;
    for (const p of model.parameters()) p.requiresGrad = true;
    return model;
  };

  test("gives the same loss, states and gradients, bit for bit", () => {
    const [plain, again] = [false, true].map((on) => {
      const model = build(on);
      const { loss, hidden_states } = model.forward({ ...batch, output_hidden_states: true });
      const values = [loss!, ...hidden_states!].map((t) => [...t.dataSync()]);
      backward(loss!);
      return { values, gradients: [...stateDict(model)].map(([key, p]) => [key, p.grad!.dataSync()]) };
    });
    expect(again).toEqual(plain);
  });

  test("keeps less of the forward pass", () => {
    const kept = (on: boolean): number => {
      using _scope = new Scope();
      const model = build(on);
      const before = defaultBackend().live;
      model.forward(batch);
      return defaultBackend().live - before;
    };
    expect(kept(true)).toBeLessThan(kept(false) / 2);
  });

  test("decodes with a cache as ever", () => {
    const [plain, again] = [false, true].map((on) =>
      noGrad(() => {
        const model = build(on);
        const past_key_values = new KvCache();
        model.forward({ input_ids: [[1, 2, 3]], past_key_values });
        return [...model.forward({ input_ids: [[4, 5]], past_key_values }).logits.dataSync()];
      }),
    );
    expect(again).toEqual(plain);
  });
});
