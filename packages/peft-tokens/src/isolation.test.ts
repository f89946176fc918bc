import { AdamW } from "@neolog/autograd";
import { Scope, setDefaultBackend } from "@neolog/tensor";
import { computingBackends } from "@neolog/tensor/testing";
import { beforeAll, describe, expect, test } from "vitest";
import {
  type IsolationRow,
  LoraConfig,
  type PeftModel,
  type PeftOptions,
  TrainableTokensConfig,
  checkIsolation,
  getPeftModel,
  tokenParameters,
} from "./index.ts";
import { BATCH, type BaseName, caught, makeBase } from "./testing.ts";

const IDS = [7, 1, 4];
/** A model whose rows have been trained. */
function trained(base: BaseName, target_modules: string[] | null, options: PeftOptions = {}): PeftModel {
  const config = new TrainableTokensConfig({ token_indices: IDS, target_modules });
  const peft = getPeftModel(makeBase(base), config, { onWarning: () => {}, ...options });
  const optimizer = new AdamW(tokenParameters(peft), { lr: 0.5 });
  for (let step = 0; step < 3; step++) {
    using _step = new Scope();
    peft.backward(peft.forward(BATCH).loss!);
    optimizer.step();
    optimizer.zeroGrad();
  }
  return peft;
}
/** "prompt: what" → what was observed, for rows that hold. */
const observed = (rows: IsolationRow[]): Record<string, string> => {
  for (const row of rows) expect(row).toMatchObject({ holds: true });
  return Object.fromEntries(
    rows.map(({ prompt, what, promise, observed: seen }) => [`${prompt}: ${what}`, promise === "same" ? "≡" : seen]),
  );
};
const ALWAYS = {
  "base: parameters": "≡",
  "untouched: hidden states": "≡",
  "untouched: logits of other tokens": "≡",
  "touched: hidden states before the token": "≡",
  "touched: logits of other tokens before it": "≡",
};

/** The columns of the table: what changes has a witness, the rest is equal to the bit. */
describe.each(await computingBackends())("A-93 the isolation table on $title", ({ backend }) => {
  beforeAll(() => setDefaultBackend(backend));

  test.each<[string, BaseName, string[] | null, PeftOptions]>([
    ["untied", "llama", null, {}],
    ["input side alone", "llama tied", null, { sides: "input" }],
    ["untied GPT-2", "gpt2 untied", null, {}],
  ])("%s: only what follows a trained token changes", (_, base, target, options) => {
    expect(observed(checkIsolation(trained(base, target, options)))).toEqual({
      ...ALWAYS,
      "untouched: logits of trained tokens": "≡",
      "touched: hidden states from it on": "changed",
      "touched: logits of other tokens from it on": "changed",
    });
  });
  test.each<[string, BaseName, string[] | null, PeftOptions]>([
    ["head alone", "llama", ["lm_head"], {}],
    ["head of a tie alone", "llama tied", ["lm_head"], {}],
    ["output side alone", "gpt2", null, { sides: "output" }],
  ])("%s: only the trained columns change", (_, base, target, options) => {
    expect(observed(checkIsolation(trained(base, target, options)))).toEqual({
      ...ALWAYS,
      "untouched: logits of trained tokens": "changed",
      "touched: hidden states from it on": "≡",
      "touched: logits of other tokens from it on": "≡",
    });
  });
  test.each<[string, BaseName, string[] | null]>([
    ["tied", "llama tied", null],
    ["tied GPT-2", "gpt2", null],
    ["untied with both ends", "llama", ["embed_tokens", "lm_head"]],
  ])("%s: both", (_, base, target) => {
    expect(observed(checkIsolation(trained(base, target)))).toEqual({
      ...ALWAYS,
      "untouched: logits of trained tokens": "changed",
      "touched: hidden states from it on": "changed",
      "touched: logits of other tokens from it on": "changed",
    });
  });
  test("with LoRA in effect the base alone is promised", () => {
    const lora = new LoraConfig({ target_modules: ["q_proj"], trainable_token_indices: IDS, init_lora_weights: false });
    const peft = getPeftModel(makeBase("llama"), lora, { onWarning: () => {} });
    const rows = checkIsolation(peft);
    expect(rows.filter(({ promise }) => promise === "same").map(({ what }) => what)).toEqual(["parameters"]);
    expect(rows.find(({ what }) => what === "hidden states")).toMatchObject({ observed: "changed", holds: true });
  });
});

test("a leak is seen", () => {
  const peft = trained("llama", null);
  const { state } = peft.adapters;
  const forward = peft.base_model.forward.bind(peft.base_model);
  peft.base_model.forward = (inputs) => {
    const result = forward(inputs);
    if (state.enabled) result.logits.dataSync = () => new Float32Array(result.logits.size);
    return result;
  };
  const broken = checkIsolation(peft).filter(({ holds }) => !holds);
  expect(broken.map(({ what }) => what)).toContain("logits of other tokens");
});

test("says what it needs", async () => {
  const peft = trained("llama", null);
  const touched = await caught(() => checkIsolation(peft, { untouched: [1, 2, 3] }));
  expect(touched.message).toBe("checkIsolation: the untouched prompt must hold no trained token, got 1");
  peft.setAdapter([]);
  expect((await caught(() => checkIsolation(peft))).message).toBe(
    "checkIsolation: an adapter must be in effect, got none",
  );
  const bert = getPeftModel(makeBase("bert, tied"), new TrainableTokensConfig({ token_indices: IDS }));
  expect(await caught(() => checkIsolation(bert))).toMatchObject({ code: "UNSUPPORTED" });
});
