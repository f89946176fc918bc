import { backward } from "@neolog/autograd";
import { Embedding, Linear, Module } from "@neolog/nn";
import { Scope, type Tensor, mean, mul, persist, randn, tensor } from "@neolog/tensor";
import { describe, expect, test } from "vitest";
import {
  LoraConfig,
  TrainableTokensConfig,
  castAdapterDtype,
  deleteAdapter,
  getPeftModelStateDict,
  injectAdapterInModel,
  setAdapter,
  setPeftModelStateDict,
  setRequiresGrad,
} from "./index.ts";
import { caught, listener, put } from "./testing.ts";

/** A module tree that is no model of the zoo. */
class Tagger extends Module {
  readonly embed_tokens: Embedding;
  readonly score: Linear;
  constructor(dtype: "float32" | "bfloat16" = "float32") {
    super();
    const weight = (rows: number, seed: number): Tensor => {
      const values = randn([rows, 4], seed);
      return persist(tensor(Array.from(values.dataSync()), [rows, 4], dtype));
    };
    this.embed_tokens = new Embedding(weight(9, 1));
    this.score = new Linear(weight(3, 2));
  }
  forward(ids: number[]): Tensor {
    return this.score.forward(this.embed_tokens.forward(Int32Array.from(ids)));
  }
}
const output = (model: Tagger): number[] => {
  using _scope = new Scope();
  return Array.from(model.forward([1, 5, 8]).dataSync());
};
const tokens = (...token_indices: number[]) => new TrainableTokensConfig({ token_indices });
const trains = (model: Module): string[] =>
  [...model.namedParameters()].filter(([, t]) => t.requiresGrad).map(([key]) => key);
const shift = (model: Module, adapterName = "default"): void => {
  for (const t of getPeftModelStateDict(model, { adapterName }).values())
    put(
      t,
      Array.from(t.dataSync(), (x, i) => x + Math.cos(i)),
    );
};

describe("a module tree without PeftModel", () => {
  test("an adapter is injected, active and trainable; names have no prefix", () => {
    const model = new Tagger();
    const plain = output(model);
    expect(injectAdapterInModel(tokens(5, 1), model)).toBe(model);
    expect(output(model)).toEqual(plain);
    expect(trains(model)).toEqual(["embed_tokens.trainable_tokens_delta.default"]);
    expect([...getPeftModelStateDict(model).keys()]).toEqual(["embed_tokens.trainable_tokens_delta"]);
    using _scope = new Scope();
    backward(mean(mul(model.forward([5, 1]), 2)));
    expect(getPeftModelStateDict(model).get("embed_tokens.trainable_tokens_delta")!.grad).not.toBeNull();
  });

  test("a second one takes its place; setting, freezing, deleting work as on a PeftModel", async () => {
    const model = new Tagger();
    const { codes, onWarning } = listener();
    const plain = output(model);
    injectAdapterInModel(tokens(5, 1), model, { onWarning });
    shift(model);
    const first = output(model);
    injectAdapterInModel(tokens(8), model, { adapterName: "second" });
    expect(output(model)).toEqual(plain);
    setAdapter(model, ["default", "second"]);
    expect(output(model)).toEqual(first);
    expect(trains(model)).toHaveLength(2);
    setRequiresGrad(model, "default", false);
    expect(trains(model)).toEqual(["embed_tokens.trainable_tokens_delta.second"]);
    expect(await caught(() => setAdapter(model, "nobody"))).toMatchObject({ code: "UNKNOWN" });
    deleteAdapter(model, "default");
    deleteAdapter(model, "second");
    expect(codes).toEqual([]);
    expect(output(model)).toEqual(plain);
    expect(model.embed_tokens).toBeInstanceOf(Embedding);
    injectAdapterInModel(tokens(2), model);
    expect(trains(model)).toHaveLength(1);
  });

  test("a failure leaves the tree as it was", async () => {
    const model = new Tagger();
    for (const t of model.parameters()) t.requiresGrad = true;
    const error = await caught(() => injectAdapterInModel(tokens(9), model));
    expect(error).toMatchObject({ code: "INDEX_RANGE" });
    expect(trains(model)).toEqual(["embed_tokens.weight", "score.weight"]);
    expect(await caught(() => setAdapter(model, "default"))).toMatchObject({ code: "UNKNOWN" });
  });

  test("state dicts are taken with PEFT's prefix or without", async () => {
    const [from, to] = [new Tagger(), new Tagger()];
    for (const model of [from, to])
      injectAdapterInModel(new LoraConfig({ target_modules: ["score"], trainable_token_indices: [1, 5] }), model);
    shift(from);
    const state = getPeftModelStateDict(from);
    setPeftModelStateDict(to, state);
    expect(output(to)).toEqual(output(from));
    shift(from);
    setPeftModelStateDict(to, new Map([...state].map(([key, t]) => [`base_model.model.${key}`, t])));
    expect(output(to)).toEqual(output(from));
    expect(await caught(() => setPeftModelStateDict(to, new Map()))).toMatchObject({ code: "MISSING" });
  });

  test.each([
    tokens(1, 5),
    new LoraConfig({ target_modules: ["score"], trainable_token_indices: [1, 5] }),
    new LoraConfig({ target_modules: ["embed_tokens"], modules_to_save: ["score"], init_lora_weights: false }),
  ])("castAdapterDtype widens an adapter, which computes what it did", (config) => {
    const model = injectAdapterInModel(config, new Tagger("bfloat16"), { autocastAdapterDtype: false });
    shift(model);
    const before = output(model);
    const dtypes = () => new Set([...getPeftModelStateDict(model).values()].map((t) => t.dtype));
    expect(dtypes()).toEqual(new Set(["bfloat16"]));
    castAdapterDtype(model, "default");
    expect(dtypes()).toEqual(new Set(["float32"]));
    expect(output(model)).toEqual(before);
    expect(trains(model)).toHaveLength(getPeftModelStateDict(model).size);
  });
});
