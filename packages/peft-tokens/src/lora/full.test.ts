import { backward } from "@neolog/autograd";
import { type StoredTensor, fromTensor, writeSafetensors } from "@neolog/checkpoint";
import type { Linear } from "@neolog/nn";
import { Scope } from "@neolog/tensor";
import { describe, expect, test } from "vitest";
import {
  type AnyPeftModel,
  LoraConfig,
  type LoraOptions,
  PeftModel,
  getBaseModelStateDict,
  getPeftModel,
  getPeftModelStateDict,
  loraParameters,
} from "../index.ts";
import { BATCH, caught, listener, logitsOf, makeBase, put, valuesOf } from "../testing.ts";

/** Modules trained in full, and the base's own biases, beside LoRA. */
const options = (name: string, more: LoraOptions): LoraOptions => ({
  r: 1,
  target_modules: [name.startsWith("gpt2") ? "c_attn" : "q_proj"],
  fan_in_fan_out: name.startsWith("gpt2"),
  ...more,
});
function adapted(name: string, more: LoraOptions) {
  const { codes, onWarning } = listener();
  const base = makeBase(name);
  return { base, codes, peft: getPeftModel(base, new LoraConfig(options(name, more)), { onWarning }) };
}
/** Moves every tensor that an adapter trains. */
function shift(peft: AnyPeftModel, by: number, adapterName = "default"): void {
  for (const [key, t] of getPeftModelStateDict(peft, { adapterName }))
    if (!key.includes("lora_"))
      put(
        t,
        Array.from(t.dataSync(), (x, i) => x + by * Math.cos(i)),
      );
}
async function saved(peft: AnyPeftModel): Promise<Map<string, Uint8Array>> {
  const files = new Map<string, Uint8Array>();
  await peft.savePretrained(files);
  return files;
}

describe.each([
  ["llama", "lm_head", "model.norm"],
  ["gpt2 untied", "lm_head", "transformer.ln_f"],
])("modules_to_save, %s", (name, head, norm) => {
  const modules_to_save = [head, norm.split(".")[1]!];

  test("copies start as the base, train in full, and leave the base alone", () => {
    const { peft, base } = adapted(name, { modules_to_save });
    const plain = logitsOf(makeBase(name));
    const before = valuesOf(makeBase(name));
    expect(logitsOf(peft)).toEqual(plain);
    using _scope = new Scope();
    backward(peft.forward(BATCH).loss!);
    expect(loraParameters(peft).every((t) => t.grad !== null)).toBe(true);
    shift(peft, 0.5);
    expect(logitsOf(peft)).not.toEqual(plain);
    expect(peft.withAdapterDisabled(() => logitsOf(peft))).toEqual(plain);
    expect(valuesOf(peft.unload())).toEqual(before);
    expect(logitsOf(base)).toEqual(plain);
  });

  test("names in memory and in files are PEFT's; files load again", async () => {
    const { peft } = adapted(name, { modules_to_save });
    shift(peft, 0.5);
    const memory = [...peft.namedParameters()].map(([key]) => key);
    expect(memory).toContain(`base_model.model.${head}.original_module.weight`);
    expect(memory).toContain(`base_model.model.${head}.modules_to_save.default.weight`);
    const keys = [...getPeftModelStateDict(peft).keys()].filter((key) => !key.includes("lora_"));
    const bias = name.startsWith("gpt2") ? [`base_model.model.${norm}.bias`] : [];
    expect(keys.toSorted()).toEqual(
      [`base_model.model.${head}.weight`, `base_model.model.${norm}.weight`, ...bias].toSorted(),
    );
    const again = await PeftModel.fromPretrained(makeBase(name), await saved(peft));
    expect(logitsOf(again)).toEqual(logitsOf(peft));
  });

  test("merged into the base, unmerged to the bit, disabled while merged", async () => {
    const { peft, base } = adapted(name, { modules_to_save });
    const before = valuesOf(makeBase(name));
    const plain = logitsOf(makeBase(name));
    shift(peft, 0.5);
    const trained = logitsOf(peft);
    await peft.mergeAdapter({ safeMerge: true });
    expect(logitsOf(peft)).toEqual(trained);
    expect(peft.withAdapterDisabled(() => logitsOf(peft))).toEqual(plain);
    peft.unmergeAdapter();
    expect(logitsOf(peft)).toEqual(trained);
    expect([...getBaseModelStateDict(peft)].map(([, t]) => t.dataSync())).toEqual([...before.values()]);
    await peft.mergeAndUnload();
    expect(logitsOf(base)).toEqual(trained);
  });

  test("A-52: NaN in a copy stops a safe merge, with its place", async () => {
    const { peft } = adapted(name, { modules_to_save });
    const scale = peft.parameters().find((t) => t.requiresGrad && t.shape.length === 1)!;
    put(
      scale,
      Array.from(scale.dataSync(), (x, i) => (i >= 4 ? Infinity : x)),
    );
    const error = await caught(() => peft.mergeAdapter({ safeMerge: true }));
    expect(error).toMatchObject({ code: "NON_FINITE", fields: { module: norm, count: 2, row: 0, column: 4 } });
    expect(peft.mergedAdapters).toEqual([]);
    expect(valuesOf(peft.unload())).toEqual(valuesOf(makeBase(name)));
  });

  test("two adapters that train one module in full exclude each other", async () => {
    const { peft } = adapted(name, { modules_to_save });
    peft.addAdapter("rival", new LoraConfig(options(name, { modules_to_save: [head] })));
    const error = await caught(() => peft.setAdapter(["default", "rival"]));
    expect(error).toMatchObject({ code: "OVERLAP", fields: { module: head, ids: [] } });
    peft.setAdapter("rival");
    expect(logitsOf(peft)).toEqual(logitsOf(makeBase(name)));
  });

  test("it is never a target of LoRA", async () => {
    const { peft } = adapted(name, {
      modules_to_save: [head],
      target_modules: [head, name === "llama" ? "q_proj" : "c_attn"],
    });
    expect(peft.getLayerStatus().map((status) => status.name)).not.toContain(head);
    const error = await caught(() => adapted(name, { modules_to_save: [head], target_modules: [head] }));
    expect(error).toMatchObject({ name: "TargetError", code: "NOT_FOUND" });
  });

  test("a module that is not there, or cannot be copied, is refused", async () => {
    const block = name === "llama" ? "mlp" : "attn";
    expect(await caught(() => adapted(name, { modules_to_save: ["nothing"] }))).toMatchObject({ code: "NOT_FOUND" });
    expect(await caught(() => adapted(name, { modules_to_save: [block] }))).toMatchObject({ code: "KIND" });
  });
});

describe.each(["llama tied", "gpt2"])("modules_to_save on a tie, %s", (name) => {
  test("a copy of the head stands beside the embedding, and merging needs untie", async () => {
    const { peft } = adapted(name, { modules_to_save: ["lm_head"] });
    shift(peft, 0.5);
    const trained = logitsOf(peft);
    expect(trained).not.toEqual(logitsOf(makeBase(name)));
    expect(await caught(() => peft.mergeAdapter())).toMatchObject({ code: "SHARED_TABLE" });
    expect(logitsOf(await PeftModel.fromPretrained(makeBase(name), await saved(peft)))).toEqual(trained);
    await peft.mergeAdapter({ untie: true });
    expect(logitsOf(peft)).toEqual(trained);
  });

  test("a copy of the embedding is looked up; the head follows with ensure_weight_tying alone", async () => {
    const embedding = name === "gpt2" ? "wte" : "embed_tokens";
    const plain = logitsOf(makeBase(name));
    const logits = [false, true].map((ensure_weight_tying) => {
      const { peft } = adapted(name, { modules_to_save: [embedding], ensure_weight_tying });
      expect(logitsOf(peft)).toEqual(plain);
      shift(peft, 0.5);
      return { peft, trained: logitsOf(peft) };
    });
    expect(logits[0]!.trained).not.toEqual(logits[1]!.trained);
    expect(await caught(() => logits[0]!.peft.mergeAdapter())).toMatchObject({ code: "SHARED_TABLE" });
    await logits[1]!.peft.mergeAdapter();
    expect(logitsOf(logits[1]!.peft)).toEqual(logits[1]!.trained);
    const head = { modules_to_save: ["lm_head"], ensure_weight_tying: true };
    expect(await caught(() => adapted(name, head))).toMatchObject({ code: "UNSUPPORTED" });
  });
});

describe("biases of the base", () => {
  const name = "gpt2 untied";
  test.each([
    ["all", 7],
    ["lora_only", 1],
  ] as const)("bias %s: they train, are saved and loaded, and stay when adapters go", async (bias, count) => {
    const { peft, codes } = adapted(name, { bias });
    const biases = [...getPeftModelStateDict(peft).keys()].filter((key) => key.endsWith("bias"));
    expect(biases).toHaveLength(count);
    expect(biases).toContain("base_model.model.transformer.h.0.attn.c_attn.base_layer.bias");
    expect(loraParameters(peft)).toHaveLength(2 + count);
    shift(peft, 0.5);
    const trained = logitsOf(peft);
    const again = await PeftModel.fromPretrained(makeBase(name), await saved(peft));
    expect(logitsOf(again)).toEqual(trained);
    expect(codes).toEqual([]);
    peft.withAdapterDisabled(() => expect(logitsOf(peft)).toEqual(trained));
    expect(codes).toEqual(["BIAS_DISABLED"]);
    const base = peft.unload();
    expect(base.parameters().some((t) => t.requiresGrad)).toBe(false);
    expect(logitsOf(base)).toEqual(trained);
  });

  test("the two further copies that PEFT writes of a full module's bias are read over", async () => {
    const { peft } = adapted(name, { bias: "all", modules_to_save: ["ln_f"] });
    shift(peft, 0.5);
    const files = await saved(peft);
    const tensors = new Map<string, StoredTensor>();
    for (const [key, t] of getPeftModelStateDict(peft)) tensors.set(key, await fromTensor(t));
    const bias = tensors.get("base_model.model.transformer.ln_f.bias")!;
    for (const copy of ["original_module", "modules_to_save"])
      tensors.set(`base_model.model.transformer.ln_f.${copy}.bias`, bias);
    const { onWarning, codes } = listener();
    const both = new Map([...files, ["adapter_model.safetensors", writeSafetensors(tensors)]]);
    expect(logitsOf(await PeftModel.fromPretrained(makeBase(name), both, { onWarning }))).toEqual(logitsOf(peft));
    expect(codes).toEqual([]);
  });

  test("only one adapter may train them", async () => {
    const { peft } = adapted(name, { bias: "all" });
    const second = new LoraConfig(options(name, { bias: "lora_only" }));
    const error = await caught(() => peft.addAdapter("second", second));
    expect(error).toMatchObject({ name: "AdapterError", code: "BIAS_TWICE", fields: { other: "default" } });
    peft.addAdapter("third", new LoraConfig(options(name, {})));
    peft.setAdapter("third");
    expect((peft.getBaseModel().moduleAt("transformer.ln_f") as Linear).bias!.requiresGrad).toBe(false);
  });
});
