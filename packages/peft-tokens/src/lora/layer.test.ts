import { AdamW, backward } from "@neolog/autograd";
import { Conv1D, Embedding, type Linear } from "@neolog/nn";
import { Scope, type Tensor, assign, matmul, persist, setDefaultBackend, tensor } from "@neolog/tensor";
import { computingBackends } from "@neolog/tensor/testing";
import { beforeAll, describe, expect, test } from "vitest";
import { type AnyPeftModel, LoraConfig, type LoraOptions, PeftModel, getPeftModel, loraParameters } from "../index.ts";
import { BATCH, caught, listener, logitsOf, makeBase, put, valuesOf } from "../testing.ts";

const config = (options: LoraOptions = {}, name = ""): LoraConfig =>
  new LoraConfig({ r: 2, lora_alpha: 3, fan_in_fan_out: name.startsWith("gpt2"), ...options });

/** Fills every matrix of an adapter, so that it has an effect. */
function fill(peft: AnyPeftModel, adapter = "default", phase = 0): void {
  for (const [key, t] of peft.namedParameters()) {
    if (!key.includes(`.${adapter}`) || !key.includes("lora_")) continue;
    put(
      t,
      Array.from({ length: t.size }, (_, i) => Math.sin(i * 1.3 + key.length + phase) / 2),
    );
  }
}
const close = (a: ArrayLike<number>, b: ArrayLike<number>, tolerance = 1e-5): void => {
  expect(a).toHaveLength(b.length);
  const worst = Math.max(...Array.from(a, (x, i) => Math.abs(x - b[i]!) / Math.max(1, Math.abs(b[i]!))));
  expect(worst).toBeLessThanOrEqual(tolerance);
};

const backends = await computingBackends();
const runs = backends.flatMap((on) => ["llama", "gpt2"].map((name) => ({ name, ...on })));

describe.each(runs)("LoRA, $name on $title", ({ name, backend }) => {
  beforeAll(() => setDefaultBackend(backend));
  const targets = name === "gpt2" ? ["c_attn", "c_proj"] : ["q_proj", "down_proj"];

  test("P-13: a fresh adapter changes no logit, an eager start does", () => {
    const plain = logitsOf(makeBase(name));
    for (const init_lora_weights of [true, "gaussian"] as const) {
      const peft = getPeftModel(makeBase(name), config({ init_lora_weights }, name));
      expect(logitsOf(peft)).toEqual(plain);
    }
    expect(logitsOf(getPeftModel(makeBase(name), config({ init_lora_weights: false }, name)))).not.toEqual(plain);
  });

  test.each([{}, { use_rslora: true }])("the output is that of W + s·B·A, with %j", (options) => {
    const peft = getPeftModel(makeBase(name), config({ ...options, target_modules: targets }, name));
    fill(peft);
    const dense = makeBase(name);
    const scale = 3 / (options.use_rslora ? Math.sqrt(2) : 2);
    const own = new Map(peft.namedParameters());
    for (const [path, module] of dense.namedModules()) {
      const A = own.get(`base_model.model.${path}.lora_A.default.weight`);
      if (!A) continue;
      const B = own.get(`base_model.model.${path}.lora_B.default.weight`)!;
      const { weight } = module as Linear | Conv1D;
      const [out, ins] = [B.shape[0]!, A.shape[1]!];
      const update = matmul(B, A).dataSync();
      const values = Array.from(weight.dataSync());
      for (let o = 0; o < out; o++)
        for (let i = 0; i < ins; i++)
          values[module instanceof Conv1D ? i * out + o : o * ins + i]! += scale * update[o * ins + i]!;
      put(weight, values);
    }
    close(logitsOf(peft), logitsOf(dense));
  });

  test("several adapters add up in the order of activation, and merging any of them changes little", async () => {
    const base = makeBase(name);
    const before = valuesOf(base);
    const plain = logitsOf(base);
    const peft = getPeftModel(base, config({ target_modules: targets }, name));
    peft.addAdapter("second", config({ r: 1, target_modules: targets.slice(1) }, name));
    fill(peft);
    fill(peft, "second", 2);
    const alone = logitsOf(peft);
    peft.setAdapter(["second", "default"]);
    expect(peft.activeAdapters).toEqual(["second", "default"]);
    const both = logitsOf(peft);
    expect(both).not.toEqual(alone);
    await peft.mergeAdapter({ adapterNames: ["default"] });
    close(logitsOf(peft), both);
    await peft.mergeAdapter();
    close(logitsOf(peft), both);
    expect(peft.withAdapterDisabled(() => logitsOf(peft))).toEqual(plain);
    peft.unmergeAdapter();
    expect(logitsOf(peft)).toEqual(both);
    expect(valuesOf(peft.unload())).toEqual(before);
  });

  test("without exactUnmerge the update is subtracted, and disabling while merged is refused", async () => {
    const base = makeBase(name);
    const before = [...valuesOf(base).values()];
    const peft = getPeftModel(base, config({ target_modules: targets }, name));
    fill(peft);
    await peft.mergeAdapter({ exactUnmerge: false });
    const error = await caught(() => peft.withAdapterDisabled(() => logitsOf(peft)));
    expect(error).toMatchObject({ name: "AdapterError", code: "MERGED" });
    expect(error.message).toContain("exactUnmerge");
    expect(peft.enabled).toBe(true);
    const after = [...valuesOf(peft.unload()).values()];
    before.forEach((values, i) => close(after[i]!, values));
  });

  test("A-5, A-52, A-53: a safe mergeAndUnload keeps the logits; NaN stops it with every weight as it was", async () => {
    const base = makeBase(name);
    const peft = getPeftModel(base, config({ target_modules: targets }, name));
    fill(peft);
    const before = logitsOf(peft);
    const weights = valuesOf(base);
    const [, last] = [...peft.namedParameters()].filter(([key]) => key.includes("lora_B")).at(-1)!;
    const values = last.dataSync().slice();
    put(
      last,
      Array.from(values, (x, i) => (i === 1 ? NaN : x)),
    );
    const error = await caught(() => peft.mergeAndUnload({ safeMerge: true }));
    expect(error).toMatchObject({ code: "NON_FINITE", fields: { name: "default" } });
    put(last, Array.from(values));
    expect(valuesOf(base)).toEqual(weights);
    close(logitsOf(await peft.mergeAndUnload({ safeMerge: true })), before);
    expect(base.parameters().some((t) => t.requiresGrad)).toBe(false);
  });

  test("A-55, A-63: steps move LoRA alone, and the loss falls", () => {
    const base = makeBase(name);
    const before = valuesOf(base);
    const peft = getPeftModel(base, config({ target_modules: targets }, name));
    const parameters = loraParameters(peft);
    expect(parameters).toHaveLength(peft.getLayerStatus().length * 2);
    const optimizer = new AdamW(parameters, { lr: 0.05 });
    const losses: number[] = [];
    for (let step = 0; step < 10; step++) {
      using _step = new Scope();
      const { loss } = peft.forward(BATCH);
      losses.push(loss!.dataSync()[0]!);
      peft.backward(loss!);
      optimizer.step();
    }
    expect(losses.at(-1)!).toBeLessThan(losses[0]!);
    expect(valuesOf(peft.unload())).toEqual(before);
  });

  test("dropout acts in training mode alone, and its state gives the same masks again", () => {
    const peft = getPeftModel(makeBase(name), config({ lora_dropout: 0.5, target_modules: targets }, name));
    fill(peft);
    expect(peft.training).toBe(true);
    const state = { ...peft.dropoutState };
    const [first, second] = [logitsOf(peft), logitsOf(peft)];
    expect(second).not.toEqual(first);
    peft.dropoutState = state;
    expect(logitsOf(peft)).toEqual(first);
    peft.eval();
    const still = logitsOf(peft);
    expect(logitsOf(peft)).toEqual(still);
    peft.addAdapter("dry", config({ target_modules: targets }, name));
    for (const [key, t] of peft.namedParameters()) {
      const twin = key.includes(".dry") ? new Map(peft.namedParameters()).get(key.replace(".dry", ".default")) : null;
      if (twin) assign(t, twin);
    }
    peft.setAdapter("dry");
    expect(logitsOf(peft)).toEqual(still);
  });

  test("loaded adapters are in eval mode unless they train", async () => {
    const files = new Map<string, Uint8Array>();
    await getPeftModel(makeBase(name), config({ target_modules: targets }, name)).savePretrained(files);
    expect((await PeftModel.fromPretrained(makeBase(name), files)).training).toBe(false);
    expect((await PeftModel.fromPretrained(makeBase(name), files, { isTrainable: true })).training).toBe(true);
  });

  test("over bfloat16 weights the matrices are float32, merging is close, unmerging exact", async () => {
    const base = makeBase(name);
    for (const [, module] of base.namedModules()) {
      if (!(module instanceof Conv1D) && !("out_features" in module)) continue;
      const holder = module as Linear;
      holder.weight = persist(tensor(Array.from(holder.weight.dataSync()), holder.weight.shape, "bfloat16"));
    }
    const bytes = valuesOf(base);
    const peft = getPeftModel(base, config({ target_modules: targets }, name));
    expect(loraParameters(peft).every((t) => t.dtype === "float32")).toBe(true);
    fill(peft);
    const before = logitsOf(peft);
    await peft.mergeAdapter();
    close(logitsOf(peft), before, 0.1);
    peft.unmergeAdapter();
    expect(logitsOf(peft)).toEqual(before);
    expect(valuesOf(peft.unload())).toEqual(bytes);
    const kept = getPeftModel(base, config({ target_modules: targets }, name), { autocastAdapterDtype: false });
    expect(loraParameters(kept).every((t) => t.dtype === "bfloat16")).toBe(true);
  });

  test("P-27: live buffers return to where they were", async () => {
    const base = makeBase(name);
    const { live } = backend;
    const peft = getPeftModel(base, config({ target_modules: targets, bias: "none" }, name));
    peft.addAdapter("second", config({ target_modules: targets }, name));
    fill(peft);
    await peft.mergeAdapter();
    peft.unmergeAdapter();
    peft.deleteAdapter("second");
    await peft.mergeAdapter();
    peft.unload();
    expect(backend.live).toBe(live);
  });

  test("memory: names of parameters are PEFT's", () => {
    const peft = getPeftModel(makeBase(name), config({ target_modules: targets.slice(0, 1) }, name));
    const at = name === "gpt2" ? "transformer.h.0.attn.c_attn" : "model.layers.0.self_attn.q_proj";
    const own = [...peft.namedParameters()].map(([key]) => key).filter((key) => key.includes(at));
    const bias = name === "gpt2" ? [`base_model.model.${at}.base_layer.bias`] : [];
    expect(own).toEqual([
      `base_model.model.${at}.base_layer.weight`,
      ...bias,
      `base_model.model.${at}.lora_A.default.weight`,
      `base_model.model.${at}.lora_B.default.weight`,
    ]);
  });
});

test.each(["float16", "float32"] as const)(
  "A-52: a safe merge of two adapters looks at what both write, over %s",
  async (dtype) => {
    const base = makeBase("llama");
    const holder = base.moduleAt("model.layers.0.self_attn.q_proj") as Linear;
    holder.weight = persist(tensor(Array.from(holder.weight.dataSync()), holder.weight.shape, dtype));
    const before = valuesOf(base);
    const options = { r: 1, lora_alpha: 1, target_modules: ["q_proj"] };
    const peft = getPeftModel(base, new LoraConfig(options));
    peft.addAdapter("second", new LoraConfig(options));
    for (const [key, t] of peft.namedParameters()) {
      if (!key.includes("lora_")) continue;
      const large = dtype === "float16" ? 200 : 1.5e19; // squares of which fit, twice as much does not
      put(t, Array(t.size).fill(large));
    }
    const adapterNames = ["default", "second"];
    for (const one of adapterNames) {
      await peft.mergeAdapter({ adapterNames: [one], safeMerge: true });
      peft.unmergeAdapter();
    }
    const error = await caught(() => peft.mergeAdapter({ adapterNames, safeMerge: true }));
    expect(error).toMatchObject({ code: "NON_FINITE", fields: { name: "second", row: 0, column: 0 } });
    expect(peft.mergedAdapters).toEqual([]);
    expect(valuesOf(peft.unload())).toEqual(before);
  },
);

describe("LoRA on an embedding", () => {
  const IDS = Int32Array.from([3, 0, 3, 10]);
  const embedding = (name: string) => (name === "gpt2" ? "wte" : "embed_tokens");

  test.each(["llama", "gpt2 untied"])("y = table + s·Aᵀ·Bᵀ, merged the same, %s", async (name) => {
    const base = makeBase(name);
    const plain = valuesOf(base);
    const peft = getPeftModel(base, config({ target_modules: [embedding(name.split(" ")[0]!)] }));
    expect(logitsOf(peft)).toEqual(logitsOf(makeBase(name)));
    fill(peft);
    const own = new Map(peft.namedParameters());
    const A = own.get(`base_model.model.${base.embeddingPath}.lora_embedding_A.default`)!;
    const B = own.get(`base_model.model.${base.embeddingPath}.lora_embedding_B.default`)!;
    expect([A.shape, B.shape]).toEqual([
      [2, 11],
      [6, 2],
    ]);
    const [a, b] = [A.dataSync(), B.dataSync()];
    const table = plain.get(`${base.embeddingPath}.weight`)!;
    const expected = [...IDS].flatMap((id) =>
      Array.from(
        { length: 6 },
        (_, j) => table[id * 6 + j]! + 1.5 * (a[id]! * b[j * 2]! + a[11 + id]! * b[j * 2 + 1]!),
      ),
    );
    const lookup = (base.moduleAt(base.embeddingPath) as unknown as Embedding).forward(IDS);
    close(lookup.dataSync(), expected);
    const before = logitsOf(peft);
    await peft.mergeAdapter();
    close(logitsOf(peft), before);
    expect(peft.withAdapterDisabled(() => logitsOf(peft))).toEqual(logitsOf(makeBase(name)));
    expect(valuesOf(peft.unload())).toEqual(plain);
  });

  test("its gradient is that of the matrices, none at padding", () => {
    const base = makeBase("llama");
    const { weight } = base.moduleAt(base.embeddingPath) as Embedding;
    Object.assign(base.moduleAt("model")!, { embed_tokens: new Embedding(weight, 3) });
    const peft = getPeftModel(base, config({ target_modules: ["embed_tokens"] }));
    fill(peft);
    using _scope = new Scope();
    backward(peft.forward(BATCH).loss!);
    const [A] = loraParameters(peft) as [Tensor, Tensor];
    const gradient = A.grad!.dataSync();
    expect([gradient[3], gradient[14]]).toEqual([0, 0]);
    expect(gradient[4]).not.toBe(0);
  });

  test("A-75: together with rows of it, or of what it is tied to, it is refused", async () => {
    for (const [name, target_modules] of [
      ["llama", ["embed_tokens"]],
      ["gpt2", ["wte"]],
      ["gpt2", ["lm_head"]],
    ] as const) {
      const base = makeBase(name);
      const make = () => getPeftModel(base, new LoraConfig({ target_modules, trainable_token_indices: [1] }));
      const error = await caught(make);
      expect(error, name).toMatchObject({ name: "ConfigError", code: "TOKENS_AND_LORA" });
      expect([...base.namedModules()].some(([path]) => path.includes("base_layer"))).toBe(false);
    }
  });

  test("merging it into a table that a head shares is refused, unless the head gets its own", async () => {
    const peft = getPeftModel(makeBase("gpt2"), config({ target_modules: ["wte"] }), {
      onWarning: listener().onWarning,
    });
    fill(peft);
    const before = logitsOf(peft);
    expect(await caught(() => peft.mergeAdapter())).toMatchObject({ code: "SHARED_TABLE" });
    await peft.mergeAdapter({ untie: true });
    close(logitsOf(peft), before);
  });

  test("LoRA on a tied head acts on the logits alone", async () => {
    const base = makeBase("llama tied");
    const peft = getPeftModel(base, config({ target_modules: ["lm_head"] }), { onWarning: listener().onWarning });
    fill(peft);
    const before = logitsOf(peft);
    expect(before).not.toEqual(logitsOf(makeBase("llama tied")));
    expect(await caught(() => peft.mergeAdapter())).toMatchObject({ code: "SHARED_TABLE" });
    await peft.mergeAdapter({ untie: true });
    close(logitsOf(peft), before);
  });
});

test("random starts differ from module to module and are the same for a seed", () => {
  const starts = (seed: number) =>
    loraParameters(getPeftModel(makeBase("llama"), config(), { seed })).map((t) => Array.from(t.dataSync()));
  const [A1, , A2] = starts(1);
  expect(A1).not.toEqual(A2);
  expect(Math.max(...A1!.map(Math.abs))).toBeLessThanOrEqual(1 / Math.sqrt(6));
  expect(starts(1)).toEqual(starts(1));
  expect(starts(2)[0]).not.toEqual(A1);
});
