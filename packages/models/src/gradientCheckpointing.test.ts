import { backward, noGrad } from "@neolog/autograd";
import { stateDict } from "@neolog/nn";
import { Scope, type Tensor, defaultBackend, zeros } from "@neolog/tensor";
import { describe, expect, test } from "vitest";
import { AutoModelForCausalLM } from "./autoModel.ts";
import { KvCache } from "./kvCache.ts";
import type { ModelOutput, PreTrainedModel } from "./preTrainedModel.ts";
import { type GradientCheckpointing, GradientCheckpointingError, blockBudget } from "./gradientCheckpointing.ts";
import { ARCHITECTURES, fromConfig } from "./registry.ts";
import { DECODERS, TINY, worstExcess } from "./testing.ts";

const batch = {
  input_ids: [[1, 2, 3, 4, 5], [0, 0, 6, 7, 8]], // prettier-ignore
  attention_mask: [[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]], // prettier-ignore
  labels: [[1, 2, 3, 4, 5], [-100, -100, 6, 7, 8]], // prettier-ignore
};
type AnyModel = PreTrainedModel<object, ModelOutput & Record<string, Tensor | readonly Tensor[]>>;

describe.each(Object.keys(ARCHITECTURES))("%s, blocks computed again", (type) => {
  const build = (gradientCheckpointing: GradientCheckpointing) => {
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

  /** Bytes that live after a forward pass. */
  const kept = (choice: GradientCheckpointing): number => {
    using _scope = new Scope();
    const model = build(choice);
    const before = defaultBackend().bytes.live;
    model.loss(batch);
    return defaultBackend().bytes.live - before;
  };

  test("keeps less of the forward pass", () => {
    expect(kept(true)).toBeLessThan(kept(false));
  });

  test("keeps as much as a budget lets it, and gives the same gradients", () => {
    const [least, most] = [kept(true), kept(false)];
    expect(kept({ maxBytes: 0 })).toBe(least);
    expect(kept({ maxBytes: Infinity })).toBe(most);
    const gradientsWith = (choice: GradientCheckpointing) => {
      using _scope = new Scope();
      const model = build(choice);
      backward(model.loss(batch));
      return model.parameters().map(({ grad }) => grad && [...grad.dataSync()]);
    };
    const budgets = Array.from({ length: 20 }, (_, i) => (most * (i + 1)) / 20);
    const between = budgets.find((maxBytes) => kept({ maxBytes }) > least && kept({ maxBytes }) < most)!;
    expect(kept({ maxBytes: between })).toBeLessThanOrEqual(least + between);
    const plain = gradientsWith(false);
    gradientsWith({ maxBytes: between }).forEach((g, i) => {
      expect(g === null).toBe(plain[i] === null);
      if (g) expect(worstExcess(g, plain[i]!, { atol: 1e-7, rtol: 1e-5 })).toBeLessThanOrEqual(0);
    });
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

describe("a budget of bytes", () => {
  test("runs again as few blocks as it takes", () => {
    const x = zeros([1, 5, 4]); // 80 bytes
    for (let maxBytes = 0; maxBytes <= 2000; maxBytes += 40) {
      const fits = blockBudget(maxBytes, 4);
      const keeping = Array.from({ length: 4 }, () => fits(x, 300)).filter(Boolean).length;
      const most = Math.max(0, Math.min(4, Math.floor((maxBytes - 4 * 80) / 300)));
      expect(keeping, `of ${maxBytes} bytes`).toBe(most);
    }
  });

  test.each([-1, NaN, "much", undefined])("is refused where it is none: %s", (maxBytes) => {
    const model = AutoModelForCausalLM.fromConfig(TINY["llama"]!);
    const choice = { maxBytes } as unknown as GradientCheckpointing;
    expect(() => (model.gradientCheckpointing = choice)).toThrow(GradientCheckpointingError);
    expect(() => (model.gradientCheckpointing = choice)).toThrow(
      `gradientCheckpointing: maxBytes must be a number of bytes from 0 on, got ${maxBytes}`,
    );
    expect(model.gradientCheckpointing).toBe(false);
  });
});
