import { backward } from "@neolog/autograd";
import { Scope } from "@neolog/tensor";
import { expect, test } from "vitest";
import { LoraConfig } from "./config.ts";
import { type PeftModel, getPeftModel } from "../model.ts";
import { makeBase } from "../testing.ts";

const INPUT_IDS = [
  [3, 1, 4, 1, 5],
  [9, 2, 6, 5, 3],
];

/** Gradients of everything that trains, with dropout from one state, blocks computed again or not. */
function gradients(peft: PeftModel, again: boolean, adapterNames?: string[]): (number[] | null)[] {
  using _ = new Scope();
  peft.getBaseModel().gradientCheckpointing = again;
  peft.dropoutState = { seed: 7, counter: 0 };
  backward(peft.forward({ input_ids: INPUT_IDS, labels: INPUT_IDS }, adapterNames ? { adapterNames } : {}).loss!);
  return peft.parameters().flatMap((t) => {
    if (!t.requiresGrad) return [];
    const grad = t.grad && Array.from(t.grad.dataSync());
    t.grad = null;
    return [grad];
  });
}

function withDropout(): PeftModel {
  const config = new LoraConfig({
    target_modules: ["q_proj", "v_proj"],
    init_lora_weights: false,
    lora_dropout: 0.5,
    trainable_token_indices: [1, 5],
  });
  return getPeftModel(makeBase("llama"), config);
}

test("a block that is computed again draws the masks of dropout that it drew", () => {
  const peft = withDropout();
  const plain = gradients(peft, false);
  const { counter } = peft.dropoutState;
  expect(counter).toBeGreaterThan(0);
  expect(gradients(peft, true)).toEqual(plain);
  expect(peft.dropoutState.counter).toBe(counter);
  expect(plain.some((grad) => grad?.some((x) => x !== 0))).toBe(true);
});

test("a block that is computed again has the batch's adapters", () => {
  const peft = withDropout();
  const adapterNames = ["default", "__base__"];
  const plain = gradients(peft, false, adapterNames);
  expect(gradients(peft, true, adapterNames)).toEqual(plain);
  expect(gradients(peft, true)).not.toEqual(plain);
});
