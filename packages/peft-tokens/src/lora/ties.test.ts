import { AdamW } from "@neolog/autograd";
import { Linear, Module, TiedHead } from "@neolog/nn";
import { type Tensor, Scope, reshape } from "@neolog/tensor";
import { describe, expect, test } from "vitest";
import {
  type AnyPeftModel,
  LoraConfig,
  type LoraOptions,
  PeftModel,
  TrainableTokensConfig,
  type TokenIndices,
  getPeftModel,
  tokenParameters,
} from "../index.ts";
import { BATCH, caught, isTied, listener, logitsOf, makeBase, put, setRows, valuesOf } from "../testing.ts";

/** Token rows beside LoRA on tied and untied models: section 6 of our specification, and what PEFT does otherwise. */
const TIED = ["llama tied", "gpt2"];
const UNTIED = ["llama", "gpt2 untied"];
const EVERY = [...TIED, ...UNTIED];
const HEAD = "lm_head";

const embeddingOf = (name: string): string => (name.startsWith("gpt2") ? "wte" : "embed_tokens");
const options = (name: string, more: LoraOptions): LoraOptions => ({
  r: 1,
  target_modules: [name.startsWith("gpt2") ? "c_attn" : "q_proj"],
  fan_in_fan_out: name.startsWith("gpt2"),
  ...more,
});

function adapted(name: string, trainable_token_indices: TokenIndices, more: LoraOptions = {}) {
  const { codes, onWarning } = listener();
  const base = makeBase(name);
  const config = new LoraConfig(options(name, { trainable_token_indices, ...more }));
  return { base, codes, peft: getPeftModel(base, config, { onWarning }) };
}
const rowKeys = (peft: AnyPeftModel): string[] =>
  [...peft.namedParameters()].map(([key]) => key).filter((key) => key.includes("trainable_tokens_delta"));
async function saved(peft: AnyPeftModel): Promise<{ keys: string[]; files: Map<string, Uint8Array> }> {
  const files = new Map<string, Uint8Array>();
  await peft.savePretrained(files);
  const bytes = files.get("adapter_model.safetensors")!;
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  return { keys: Object.keys(header).filter((key) => key.includes("tokens_delta")), files };
}

describe.each(EVERY)("token rows beside LoRA, %s", (name) => {
  const embedding = embeddingOf(name);
  const path = makeBase(name).embeddingPath;
  const nested = `base_model.model.${path}.token_adapter.trainable_tokens_delta`;

  test.each<[string, TokenIndices]>([
    ["A-15, A-16, A-17, A-38, A-39: a list", [5, 1]],
    ["A-37: a record of the embedding", { [embedding]: [5, 1] }],
  ])("%s gives the embedding rows, and what is tied to it the same", async (_, indices) => {
    const { peft } = adapted(name, indices);
    setRows(peft, "default");
    expect(rowKeys(peft)).toEqual([`${nested}.default`]);
    expect((await saved(peft)).keys).toEqual([nested]);
    const rows = peft.getLayerStatus().filter((status) => status.module_type === "TrainableTokensLayer");
    const users = isTied(name) ? [path, HEAD] : [path];
    expect(rows.map((status) => status.name)).toEqual(users.map((user) => `${user}.token_adapter`));
    const alone = getPeftModel(makeBase(name), new TrainableTokensConfig({ token_indices: [5, 1] }));
    setRows(alone, "default");
    expect(logitsOf(peft)).toEqual(logitsOf(alone));
  });

  test.each([false, true])("A-35, A-36, A-43: equal lists on both ends (ensure_weight_tying %s)", (flag) => {
    const { peft, codes } = adapted(name, { [HEAD]: [5, 1], [embedding]: [5, 1] }, { ensure_weight_tying: flag });
    expect(tokenParameters(peft)).toHaveLength(isTied(name) ? 1 : 2);
    expect(codes).toEqual(flag && !isTied(name) ? ["NOT_TIED"] : []);
  });

  test("A-33, A-40: different lists are two adapters, each on its side", async () => {
    const { peft } = adapted(name, { [embedding]: [5, 1], [HEAD]: [1, 5] });
    const { keys, files } = await saved(peft);
    expect(tokenParameters(peft)).toHaveLength(2);
    expect(keys.toSorted()).toEqual([nested, nested.replace(path, HEAD)].toSorted());
    setRows(peft, "default", (slot, column) => slot - column / 4);
    const untied = makeBase(name.startsWith("gpt2") ? "gpt2 untied" : "llama");
    if (isTied(name)) {
      const table = valuesOf(makeBase(name)).get(`${path}.weight`)!;
      const { weight } = untied.moduleAt(HEAD) as Linear;
      put(weight, table);
    }
    const indices = { [embedding]: [5, 1], [HEAD]: [1, 5] };
    const reference = getPeftModel(untied, new LoraConfig(options(name, { trainable_token_indices: indices })));
    setRows(reference, "default", (slot, column) => slot - column / 4);
    expect(logitsOf(peft)).toEqual(logitsOf(reference));
    const again = await PeftModel.fromPretrained(makeBase(name), files);
    expect(again.layers().size).toBe(2);
  });

  test("A-34: with ensure_weight_tying different lists of tied modules are an error, in whatever they differ", async () => {
    for (const ids of [[1, 5], [5, 1, 2], [7]]) {
      const make = () => adapted(name, { [embedding]: [5, 1], [HEAD]: ids }, { ensure_weight_tying: true });
      if (!isTied(name)) {
        expect(make().codes).toEqual(["NOT_TIED"]);
        continue;
      }
      const error = await caught(make);
      expect(error).toMatchObject({
        name: "ConfigError",
        code: "TIE_CONFLICT",
        fields: { layers: { [path]: [5, 1], [HEAD]: ids } },
      });
      expect(error.message).toContain("5, 1");
    }
  });

  test("A-32: ensure_weight_tying on an untied model warns, on a tied one it does not", () => {
    for (const indices of [[1], { [embedding]: [1] }, { [HEAD]: [1] }, { [HEAD]: [1], [embedding]: [1] }]) {
      const { codes } = adapted(name, indices, { ensure_weight_tying: true });
      expect(codes).toEqual(isTied(name) ? [] : ["NOT_TIED"]);
    }
  });

  test("T-9, A-21: rows of a module that is trained in full, or tied to one, are refused in all four spellings", async () => {
    const spellings: [TokenIndices, string[]][] = [
      [[1], [embedding]],
      [{ [embedding]: [1] }, [embedding]],
      [[1], [path]],
      [{ [path]: [1] }, [embedding]],
      ...(isTied(name) ? ([[[1], [HEAD]]] as [TokenIndices, string[]][]) : []),
    ];
    for (const [indices, modules_to_save] of spellings) {
      const base = makeBase(name);
      const before = valuesOf(base);
      const config = new LoraConfig(options(name, { trainable_token_indices: indices, modules_to_save }));
      const error = await caught(() => getPeftModel(base, config));
      expect(error).toMatchObject({ name: "ConfigError", code: "TOKENS_AND_FULL" });
      expect(error.message).toContain("modules_to_save");
      expect(valuesOf(base)).toEqual(before);
      expect([...base.namedModules()].some(([p]) => p.includes("token_adapter"))).toBe(false);
    }
  });

  test("T-10, A-13: keys match at a dot, and a key without a match is an error with the nearest name", async () => {
    for (const key of [embedding.slice(2), "nothing"]) {
      const error = await caught(() => adapted(name, { [key]: [1], [embedding]: [2] }));
      expect(error).toMatchObject({ name: "TargetError", code: "NOT_FOUND" });
      expect(error.message).toContain(`"${key}"`);
    }
    expect(await caught(() => adapted(name, { [embedding]: [11] }))).toMatchObject({ code: "INDEX_RANGE" });
  });

  test("A-2, A-22, A-81: trained, saved, loaded, merged: the same logits", async () => {
    const { peft, base } = adapted(name, [5, 1]);
    const optimizer = new AdamW(
      peft.parameters().filter((t) => t.requiresGrad),
      { lr: 0.05 },
    );
    for (let step = 0; step < 3; step++) {
      using _step = new Scope();
      peft.backward(peft.forward(BATCH).loss!);
      optimizer.step();
    }
    const trained = logitsOf(peft);
    const { files } = await saved(peft);
    const again = await PeftModel.fromPretrained(makeBase(name), files);
    expect(logitsOf(again)).toEqual(trained);
    expect(again.peftConfig["default"]!.toJSON()).toEqual(
      JSON.parse(new TextDecoder().decode(files.get("adapter_config.json"))),
    );
    const merged = await peft.mergeAndUnload({ safeMerge: true });
    expect(merged).toBe(base);
    const logits = logitsOf(merged);
    expect(Math.max(...trained.map((x, i) => Math.abs(x - logits[i]!)))).toBeLessThan(1e-4);
    expect([...merged.namedModules()].some(([p]) => /lora_|token_adapter/.test(p))).toBe(false);
  });

  test("A-66, A-44: of two LoRA adapters one has rows; setting, deleting, listing are right on every module", async () => {
    const { peft } = adapted(name, [5, 1]);
    peft.addAdapter("plain", new LoraConfig(options(name, {})));
    setRows(peft, "default");
    const withRows = logitsOf(peft);
    peft.setAdapter("plain");
    expect(logitsOf(peft)).toEqual(logitsOf(makeBase(name)));
    peft.setAdapter(["plain", "default"]);
    expect(logitsOf(peft)).toEqual(withRows);
    expect(peft.getLayerStatus().map(({ available_adapters: names }) => names.length)).toEqual(
      peft.getLayerStatus().map(({ name: at }) => (at.endsWith("token_adapter") ? 1 : 2)),
    );
    peft.deleteAdapter("default");
    expect(peft.layers().size).toBe(0);
    expect(peft.getModelStatus()).toMatchObject({
      adapter_model_type: "LoraModel",
      active_adapters: ["plain"],
      peft_types: { plain: "LORA" },
    });
  });

  test("A-67: rows of the same ids in two active LoRA adapters are refused", async () => {
    const { peft } = adapted(name, [5, 1]);
    peft.addAdapter("rival", new LoraConfig(options(name, { trainable_token_indices: [1] })));
    expect(await caught(() => peft.setAdapter(["default", "rival"]))).toMatchObject({ code: "OVERLAP" });
    expect(peft.activeAdapters).toEqual(["default"]);
  });
});

describe.each(TIED)("one side of a tie beside LoRA, %s", (name) => {
  const embedding = embeddingOf(name);
  test("T-5: merging independent lists is refused; with untie both sides stay as they were", async () => {
    const { peft, codes } = adapted(name, { [embedding]: [5, 1], [HEAD]: [1, 9] });
    setRows(peft, "default", (slot, column) => slot - column / 3);
    const before = logitsOf(peft);
    const plain = peft.withAdapterDisabled(() => logitsOf(peft));
    for (const merge of [() => peft.mergeAdapter(), () => peft.mergeAndUnload()])
      expect(await caught(merge)).toMatchObject({ name: "AdapterError", code: "SHARED_TABLE" });
    await peft.mergeAdapter({ untie: true });
    expect(codes).toEqual(["UNTIED"]);
    expect(logitsOf(peft)).toEqual(before);
    expect(peft.withAdapterDisabled(() => logitsOf(peft))).toEqual(plain);
    peft.unmergeAdapter();
    expect(logitsOf(peft)).toEqual(before);
    expect(logitsOf(await peft.mergeAndUnload())).toEqual(before);
  });

  test("rows of the head alone overlap with rows of the tied embedding that are in effect with them", async () => {
    const { peft } = adapted(name, [5, 1]);
    peft.addAdapter("head", new LoraConfig(options(name, { trainable_token_indices: { [HEAD]: [1] } })));
    const error = await caught(() => peft.setAdapter(["default", "head"]));
    expect(error).toMatchObject({ code: "OVERLAP", fields: { ids: [1], module: HEAD } });
  });
});

/** Two models side by side. */
class Composite extends Module {
  readonly m1 = makeBase("llama tied", 3);
  readonly m2 = makeBase("llama tied", 4);
  forward(ids: number[][]): Tensor[] {
    return [this.m1, this.m2].map((model) => model.forward({ input_ids: ids }).logits);
  }
}
const values = (peft: PeftModel<Composite>): number[][] => {
  using _scope = new Scope();
  return peft.forward([[1, 5, 2]]).map((logits) => Array.from(reshape(logits, [logits.size]).dataSync()));
};

describe("a model of several models", () => {
  const lora = (trainable_token_indices: TokenIndices) =>
    new LoraConfig({ target_modules: ["q_proj"], trainable_token_indices });

  test("A-41: a full path selects one of them, and the tie acts inside it alone", () => {
    const plain = values(getPeftModel(new Composite(), lora([1])));
    const peft = getPeftModel(new Composite(), lora({ "m1.model.embed_tokens": [1, 5] }));
    setRows(peft as never, "default");
    const [first, second] = values(peft);
    expect(first).not.toEqual(plain[0]);
    expect(second).toEqual(plain[1]);
    const names = peft.getLayerStatus().map((status) => status.name);
    expect(names).toContain("m1.lm_head.token_adapter");
    expect(names).not.toContain("m2.lm_head.token_adapter");
  });

  test("A-42: a short name matches in both; so does a list, where no embedding is named", () => {
    for (const indices of [{ embed_tokens: [1, 5] }, [1, 5]]) {
      const peft = getPeftModel(new Composite(), lora(indices));
      expect([...peft.layers().keys()]).toEqual(["m1.model.embed_tokens", "m2.model.embed_tokens"]);
      setRows(peft as never, "default");
      const plain = values(getPeftModel(new Composite(), lora([1])));
      values(peft).forEach((logits, i) => expect(logits).not.toEqual(plain[i]));
    }
  });

  test("a tied head reads the rows of its own model", async () => {
    const peft = getPeftModel(new Composite(), lora({ "m2.model.embed_tokens": [1, 5] }));
    setRows(peft as never, "default");
    const before = values(peft);
    await peft.mergeAdapter();
    const after = values(peft);
    after.flat().forEach((x, i) => expect(x).toBeCloseTo(before.flat()[i]!, 4));
    expect(peft.getBaseModel().m1.moduleAt(HEAD)).toBeInstanceOf(TiedHead);
  });
});
