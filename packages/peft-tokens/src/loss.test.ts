import type { CausalLM } from "@neolog/models";
import { worstExcess } from "@neolog/models/testing";
import { linearCrossEntropy, Scope, type Tensor } from "@neolog/tensor";
import { describe, expect, test, vi } from "vitest";
import {
  type AdapterError,
  LoraConfig,
  type PeftConfig,
  type PeftModel,
  TrainableTokensConfig,
  getPeftModel,
} from "./index.ts";
import { BATCH, type BaseName, makeBase, setRows } from "./testing.ts";

/** `loss` against the loss of `forward`, whose logits are whole, in every state that a head can be in. */
vi.mock(import("@neolog/tensor"), { spy: true });

const short = (path: string | null): string => path!.split(".").at(-1)!;
type Made = (base: CausalLM) => PeftConfig;
const rows =
  (token_indices: number[]): Made =>
  () =>
    new TrainableTokensConfig({ token_indices });
const lora =
  (options: (base: CausalLM) => object): Made =>
  (base) =>
    new LoraConfig({ r: 2, init_lora_weights: false, ...options(base) });
const blocks = "(q_proj|c_attn)";

/** Configs, and whether the loss is formed without logits. */
const CONFIGS: Readonly<Record<string, { readonly made: Made; readonly fused: boolean }>> = {
  rows: { made: rows([7, 1]), fused: true },
  "rows of the head alone": {
    made: ({ headPath }) => new TrainableTokensConfig({ token_indices: [2, 5], target_modules: [short(headPath)] }),
    fused: true,
  },
  "LoRA on blocks": { made: lora(() => ({ target_modules: `.*${blocks}` })), fused: true },
  "LoRA with a list of rows": {
    made: lora(() => ({ target_modules: `.*${blocks}`, trainable_token_indices: [7, 1] })),
    fused: true,
  },
  "LoRA with rows of both ends": {
    made: lora(({ embeddingPath, headPath }) => ({
      target_modules: `.*${blocks}`,
      trainable_token_indices: { [short(embeddingPath)]: [7, 1], [short(headPath)]: [1, 4, 7] },
    })),
    fused: true,
  },
  "LoRA on the head": { made: lora(({ headPath }) => ({ target_modules: [short(headPath)] })), fused: false },
  "LoRA on the embedding": { made: lora((base) => ({ target_modules: [short(base.embeddingPath)] })), fused: true },
  "the head in full": {
    made: lora(({ headPath }) => ({ target_modules: `.*${blocks}`, modules_to_save: [short(headPath)] })),
    fused: true,
  },
};
const BASES: BaseName[] = ["gpt2", "gpt2 untied", "llama", "llama tied", "gemma2, tied", "gemma2, untied"];

/** The loss and the gradients of what trains. */
function found(peft: PeftModel, lossOf: () => Tensor): ArrayLike<number>[] {
  using _scope = new Scope();
  const loss = lossOf();
  const trained = peft.parameters().filter((t) => t.requiresGrad);
  if (loss.tracked) peft.backward(loss);
  const values = [loss, ...trained.flatMap((t) => t.grad ?? [])].map((t) => t.dataSync());
  for (const t of trained) t.grad = null;
  return values;
}
function expectEqual(peft: PeftModel, options: { adapterNames?: string[] } = {}): boolean {
  const expected = found(peft, () => peft.forward(BATCH, options).loss!);
  const fused = vi.mocked(linearCrossEntropy);
  fused.mockClear();
  const actual = found(peft, () => peft.loss(BATCH, options));
  expect(actual).toHaveLength(expected.length);
  actual.forEach((values, i) =>
    expect(worstExcess(values, expected[i]!, { atol: 1e-6, rtol: 1e-5 })).toBeLessThanOrEqual(0),
  );
  return fused.mock.calls.length > 0;
}

describe.each(BASES)("%s", (name) => {
  test.each(Object.entries(CONFIGS))("%s: plain, disabled and merged", async (_, { made, fused }) => {
    const base = makeBase(name);
    const peft = getPeftModel(base, made(base), { onWarning: () => {} }).eval();
    setRows(peft, "default");
    expect(expectEqual(peft)).toBe(fused);
    peft.withAdapterDisabled(() => expectEqual(peft));
    const refused = await peft.mergeAdapter().catch((error: AdapterError) => error.code);
    if (refused) expect([refused, base.tiedPaths.length]).toEqual(["SHARED_TABLE", 1]);
    else expectEqual(peft);
  });

  test("several adapters of rows at once", () => {
    const base = makeBase(name);
    const peft = getPeftModel(base, new TrainableTokensConfig({ token_indices: [7, 1] }));
    peft.addAdapter("second", new TrainableTokensConfig({ token_indices: [3, 9, 1] }));
    setRows(peft, "default");
    setRows(peft, "second", (slot, column) => Math.cos(3 * slot + column));
    peft.setAdapter(["default", "second"], { overlap: "first" });
    expect(expectEqual(peft)).toBe(true);
    peft.setAdapter("default");
    expect(expectEqual(peft)).toBe(true);
  });

  test("a mixed batch", () => {
    const base = makeBase(name);
    const peft = getPeftModel(base, new TrainableTokensConfig({ token_indices: [7, 1] }));
    setRows(peft, "default");
    const tied = base.tiedPaths.length > 0;
    expect(expectEqual(peft, { adapterNames: ["default", "__base__"] })).toBe(!tied);
  });
});

test("a base that gives no loss says so", () => {
  const peft = getPeftModel(makeBase("llama"), new TrainableTokensConfig({ token_indices: [1] }));
  expect(() => peft.loss({ input_ids: BATCH.input_ids })).toThrow("loss: labels are needed, got none");
});
