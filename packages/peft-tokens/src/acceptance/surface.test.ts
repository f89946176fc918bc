import { beforeAll, describe, expect, test } from "vitest";
import { defaultBackend, setDefaultBackend, tensor } from "@neolog/tensor";
import {
  PeftModel,
  getBaseModelStateDict,
  getPeftModel,
  getPeftModelStateDict,
  setBaseModelStateDict,
  setPeftModelStateDict,
  tokensOf,
} from "../index.ts";
import { caught, listener, logitsOf, makeBase, valuesOf } from "../testing.ts";
import { HIDDEN, VOCAB, config, embeddingOf, everyWorld, expectSame, saved, withRows, withThree } from "./world.ts";

describe.each(await everyWorld())("files, state and status, $name on $title", ({ name, backend }) => {
  beforeAll(() => setDefaultBackend(backend));

  test("A-46, A-47: folders of selected adapters; a name inside another name is not confused with it", async () => {
    const peft = withRows(makeBase(name));
    peft.addAdapter("def", config([2]));
    peft.addAdapter("default_2", config([3, 0]));
    const files = await saved(peft, { selectedAdapters: ["default_2", "def"] });
    expect([...files.keys()].toSorted()).toEqual(
      ["def", "default_2"]
        .flatMap((f) => [`${f}/adapter_config.json`, `${f}/adapter_model.safetensors`])
        .concat("README.md")
        .toSorted(),
    );
    const again = await PeftModel.fromPretrained(makeBase(name), files, { subfolder: "def", adapterName: "default" });
    expect(tokensOf(again.peftConfig["default"]!)).toEqual([2]);
    expect(new TextDecoder().decode(files.get("README.md"))).toContain("2 rows");
    const unknown = await caught(() => saved(peft, { selectedAdapters: ["nobody"] }));
    expect(unknown).toMatchObject({ code: "UNKNOWN" });
    expect(unknown.message).toContain("default, def, default_2");
  });

  test("A-65: the base's tensors are read and written under their own names", async () => {
    const peft = withRows(makeBase(name));
    const plain = valuesOf(makeBase(name));
    const state = getBaseModelStateDict(peft);
    expect(new Map([...state].map(([key, t]) => [key, t.dataSync()]))).toEqual(plain);
    const other = makeBase(name, 8);
    setBaseModelStateDict(peft, new Map(other.namedParameters()));
    expect(peft.withAdapterDisabled(() => logitsOf(peft))).toEqual(logitsOf(other));
    await peft.mergeAdapter();
    expect(await caught(() => setBaseModelStateDict(peft, state))).toMatchObject({ code: "MERGED" });
    expect(valuesOf(peft.unload())).toEqual(valuesOf(other)); // the originals followed the base
  });

  test("the adapter's tensors are read and written by the keys of its file, with prefix or without", async () => {
    const peft = withRows(makeBase(name));
    const fresh = getPeftModel(makeBase(name), config());
    const state = getPeftModelStateDict(peft);
    setPeftModelStateDict(
      fresh,
      new Map([...state].map(([key, t]) => [`${key.replace("base_model.model.", "")}.default`, t])),
    );
    expectSame(logitsOf(fresh), logitsOf(peft));
    const [first, ...rest] = [...state];
    setPeftModelStateDict(getPeftModel(makeBase(name), config()), new Map([first!]));
    expect(await caught(() => setPeftModelStateDict(fresh, new Map()))).toMatchObject({ code: "MISSING" });
    expect(
      await caught(() => setPeftModelStateDict(fresh, new Map([first!, ...rest, ["x", first![1]]]))),
    ).toMatchObject({ code: "UNEXPECTED" });
    expect(await caught(() => getPeftModelStateDict(fresh, { adapterName: "nobody" }))).toMatchObject({
      code: "UNKNOWN",
    });
    const narrow = new Map([...state].map(([key]) => [key, tensor([1, 2], [1, 2])]));
    expect(await caught(() => setPeftModelStateDict(fresh, narrow))).toMatchObject({ code: "SHAPE" });
    expectSame(logitsOf(fresh), logitsOf(peft));
  });

  test("A-74: status of layers and model through add, merge and disable", async () => {
    const peft = withThree(makeBase(name));
    await peft.mergeAdapter();
    peft.disableAdapterLayers();
    const expected = {
      enabled: false,
      active_adapters: ["default"],
      merged_adapters: ["default"],
      requires_grad: { default: false, second: false, third: false },
      available_adapters: ["default", "second", "third"],
    };
    const devices = Object.fromEntries(["default", "second", "third"].map((a) => [a, [defaultBackend().name]]));
    for (const status of peft.getLayerStatus())
      expect(status).toMatchObject({ ...expected, devices, module_type: "TrainableTokensLayer" });
    expect(peft.getModelStatus()).toMatchObject({
      ...expected,
      devices,
      adapter_model_type: "TrainableTokensModel",
      peft_types: { default: "TRAINABLE_TOKENS", second: "TRAINABLE_TOKENS", third: "TRAINABLE_TOKENS" },
      num_adapter_layers: 1 + peft.getBaseModel().tiedPaths.length,
      trainable_params: 0,
    });
    peft.enableAdapterLayers();
    expect(peft.getModelStatus().requires_grad).toEqual({ default: true, second: false, third: false });
  });

  test("reading weight of a wrapped embedding gives the table in effect, with one warning", async () => {
    const { codes, onWarning } = listener();
    const peft = withThree(makeBase(name), onWarning as () => void);
    const layer = embeddingOf(peft);
    const effective = layer.weight.dataSync();
    const base = peft.withAdapterDisabled(() => layer.weight.dataSync());
    await peft.mergeAdapter();
    expect(layer.weight.dataSync()).toEqual(effective);
    expect(peft.withAdapterDisabled(() => layer.weight.dataSync())).toEqual(base);
    expect(layer.table.dataSync()).toEqual(effective);
    expect(codes).toEqual(["WEIGHT_BUILT"]);
    expect([layer.num_embeddings, layer.embedding_dim]).toEqual([VOCAB, HIDDEN]);
  });
});
