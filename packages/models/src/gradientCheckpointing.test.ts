import { backward, noGrad } from "@neolog/autograd";
import { stateDict } from "@neolog/nn";
import { Scope, type Tensor, defaultBackend } from "@neolog/tensor";
import { describe, expect, test } from "vitest";
import { AutoModelForCausalLM } from "./autoModel.ts";
import { KvCache } from "./kvCache.ts";
import type { ModelOutput, PreTrainedModel } from "./preTrainedModel.ts";
import { ARCHITECTURES, fromConfig } from "./registry.ts";
import { DECODERS, TINY, worstExcess } from "./testing.ts";

const batch = {
  input_ids: [[1, 2, 3, 4, 5], [0, 0, 6, 7, 8]], // prettier-ignore
  attention_mask: [[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]], // prettier-ignore
  labels: [[1, 2, 3, 4, 5], [-100, -100, 6, 7, 8]], // prettier-ignore
};
type AnyModel = PreTrainedModel<object, ModelOutput & Record<string, Tensor | readonly Tensor[]>>;

describe.each(Object.keys(ARCHITECTURES))("%s, blocks computed again", (type) => {
  const build = (gradientCheckpointing: boolean) => {
    const model = fromConfig(TINY[type]!, { seed: 5, std: 0.3 }, (any) => any as AnyModel);
    model.gradientCheckpointing = gradientCheckpointing;
    for (const p of model.parameters()) p.requiresGrad = true;
    return model;
  };

  test("gives the same outputs, and the same gradients", () => {
    const [plain, again] = [false, true].map((on) => {
      const model = build(on);
      const output = model.forward({ ...batch, output_hidden_states: true });
      const values = Object.entries(output).map(([key, t]) => [key, [t!].flat().map((x) => [...x.dataSync()])]);
      backward(output.loss!);
      return { values, gradients: [...stateDict(model)].map(([key, { grad }]) => ({ key, g: grad?.dataSync() })) };
    });
    expect(again!.values).toEqual(plain!.values);
    // the blocks of T5's decoder share the encoder's output: its gradient is summed in another order
    const tolerance = type === "t5" ? { atol: 1e-7, rtol: 1e-5 } : { atol: 0 };
    plain!.gradients.forEach(({ key, g }, i) => {
      if (g) expect(worstExcess(again!.gradients[i]!.g!, g, tolerance), key).toBeLessThanOrEqual(0);
      else expect(again!.gradients[i]!.g, key).toBeUndefined();
    });
    expect(plain!.gradients.some(({ g }) => g !== undefined)).toBe(true);
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
});

test.each(DECODERS)("%s decodes with a cache as ever", (type) => {
  const [plain, again] = [false, true].map((on) =>
    noGrad(() => {
      const model = AutoModelForCausalLM.fromConfig(TINY[type]!, { seed: 5, std: 0.3 });
      model.gradientCheckpointing = on;
      const past_key_values = new KvCache();
      model.forward({ input_ids: [[1, 2, 3]], past_key_values });
      return [...model.forward({ input_ids: [[4, 5]], past_key_values }).logits.dataSync()];
    }),
  );
  expect(again).toEqual(plain);
});
