import { AdamW, backward, checkpoint } from "@neolog/autograd";
import { type CausalLM, AutoModelForCausalLM } from "@neolog/models";
import { Linear } from "@neolog/nn";
import { Scope, type Tensor, defaultBackend, setDefaultBackend, tensor } from "@neolog/tensor";
import { computingBackends } from "@neolog/tensor/testing";
import { beforeAll, describe, expect, test } from "vitest";
import {
  type AdapterError,
  PeftModel,
  TASK_TYPES,
  TrainableTokensConfig,
  TrainableTokensLayer,
  getBaseModelStateDict,
  getPeftModel,
  getPeftModelStateDict,
  setBaseModelStateDict,
  setPeftModelStateDict,
  tokenParameters,
} from "./index.ts";
import {
  BASES,
  BATCH,
  type BaseName,
  caught,
  isTied,
  listener,
  logitsOf,
  makeBase,
  setRows,
  valuesOf,
} from "./testing.ts";

/** The acceptance list of our specification, by its numbers, as far as it speaks of standalone adapters. */
const NAMES: BaseName[] = ["llama", "llama tied", "gpt2", "gpt2 untied"];
const IDS = [7, 1, 4];
const HIDDEN = 6;

const config = (token_indices: number[] = IDS) => new TrainableTokensConfig({ token_indices });
const embeddingOf = (peft: PeftModel): TrainableTokensLayer => peft.layers().get(peft.getBaseModel().embeddingPath)!;
const rowsOf = (peft: PeftModel, name = "default") => embeddingOf(peft).trainable_tokens_delta[name]!.dataSync();

function withRows(base: CausalLM, ids = IDS): PeftModel {
  const peft = getPeftModel(base, config(ids));
  setRows(peft, "default");
  return peft;
}
/** Three adapters with different ids; "default" is active. */
function withThree(base: CausalLM, onWarning = (): void => {}): PeftModel {
  const peft = getPeftModel(base, config(), { onWarning });
  peft.addAdapter("second", config([2, 9]));
  peft.addAdapter("third", config([5]));
  setRows(peft, "default");
  setRows(peft, "second", (slot, column) => slot - column / 4);
  setRows(peft, "third", (_, column) => column / 5 - 1);
  return peft;
}
function train(peft: PeftModel, steps: number, lr = 0.05): number[] {
  const optimizer = new AdamW(tokenParameters(peft), { lr });
  const losses = [];
  for (let step = 0; step < steps; step++) {
    using _step = new Scope();
    const { loss } = peft.forward(BATCH);
    losses.push((loss!.dataSync() as Float32Array)[0]!);
    peft.backward(loss!);
    optimizer.step();
  }
  optimizer.dispose();
  return losses;
}
async function saved(peft: PeftModel, options = {}): Promise<Map<string, Uint8Array>> {
  const files = new Map<string, Uint8Array>();
  await peft.savePretrained(files, options);
  return files;
}
const embed = (peft: PeftModel, ids: number[]): ArrayLike<number> => {
  using _scope = new Scope();
  return embeddingOf(peft).forward(Int32Array.from(ids)).dataSync();
};

/** All bases on wasm, one on cpu. */
const backends = await computingBackends();
const runs = backends.flatMap((on) =>
  NAMES.filter((name) => on.backend.name === "wasm" || name === "llama tied").map((name) => ({ name, ...on })),
);

describe.each(runs)("acceptance, $name on $title", ({ name, backend }) => {
  beforeAll(() => setDefaultBackend(backend));

  test("A-1: a saved adapter on a fresh base changes its ids and leaves the table", async () => {
    const peft = withRows(makeBase(name));
    const base = makeBase(name);
    const table = valuesOf(base).get(`${base.embeddingPath}.weight`)!;
    const loaded = await PeftModel.fromPretrained(base, await saved(peft));
    const all = [...Array(11).keys()];
    expect(embed(loaded, all)).toEqual(embed(peft, all));
    for (const id of all) {
      const row = Array.from(table).slice(id * HIDDEN, (id + 1) * HIDDEN);
      if (IDS.includes(id)) expect([...(embed(loaded, [id]) as Float32Array)]).not.toEqual(row);
      else expect([...(embed(loaded, [id]) as Float32Array)]).toEqual(row);
    }
    expect(embeddingOf(loaded).table.dataSync()).toEqual(table);
  });

  test("A-3, A-55, A-63: steps move the rows, nothing else, and the loss falls", () => {
    const base = makeBase(name);
    const before = valuesOf(base);
    const peft = getPeftModel(base, config());
    const original = embeddingOf(peft).originalOf("default").dataSync();
    const rows = rowsOf(peft);
    const losses = train(peft, 12);
    expect(losses.at(-1)!).toBeLessThan(losses[0]!);
    expect(rowsOf(peft)).not.toEqual(rows);
    expect(embeddingOf(peft).originalOf("default").dataSync()).toEqual(original);
    expect(valuesOf(peft.unload())).toEqual(before);
  });

  test("A-4, A-58: trained, merged, disabled it is the base; enabled it is trained and still merged", async () => {
    const base = makeBase(name);
    const plain = logitsOf(base);
    const peft = getPeftModel(base, config());
    train(peft, 3);
    const trained = logitsOf(peft);
    await peft.mergeAdapter();
    expect(peft.withAdapterDisabled(() => logitsOf(peft))).toEqual(plain);
    expect(peft.mergedAdapters).toEqual(["default"]);
    expect(logitsOf(peft)).toEqual(trained);
  });

  test("A-5, A-22: a safe mergeAndUnload keeps the logits, leaves no layer, and the rows are the trained ones", async () => {
    const base = makeBase(name);
    const peft = withRows(base);
    const before = logitsOf(peft);
    const rows = rowsOf(peft);
    const progress: [number, number][] = [];
    const merged = await peft.mergeAndUnload({ safeMerge: true, onProgress: (...done) => progress.push(done) });
    expect(merged).toBe(base);
    expect(progress.at(-1)).toEqual([1, 1]);
    expect([...merged.namedModules()].some(([, m]) => m instanceof TrainableTokensLayer)).toBe(false);
    expect(logitsOf(merged)).toEqual(before);
    const table = Array.from(valuesOf(merged).get(`${merged.embeddingPath}.weight`)!);
    expect(IDS.flatMap((id) => table.slice(id * HIDDEN, (id + 1) * HIDDEN))).toEqual(Array.from(rows));
    expect(merged.parameters().some((p) => p.requiresGrad)).toBe(false);
  });

  test("A-6, A-49: one folder loads under further names, side by side, with no missing key", async () => {
    const files = await saved(withRows(makeBase(name)));
    const peft = await PeftModel.fromPretrained(makeBase(name), files, { adapterName: "one" });
    const report = await peft.loadAdapter(files, "two");
    await peft.loadAdapter(files, "three", { isTrainable: true });
    expect(report).toEqual({ missingKeys: [], unexpectedKeys: [], mismatchedKeys: [] });
    expect(rowsOf(peft, "two")).toEqual(rowsOf(peft, "one"));
    expect(peft.activeAdapters).toEqual(["one"]);
    expect(["one", "two", "three"].map((adapter) => peft.requiresGradOf(adapter))).toEqual([false, false, true]);
  });

  test("A-7, A-44, A-60: switching changes exactly the ids of the adapters involved", () => {
    const base = makeBase(name);
    const peft = withThree(base);
    peft.setAdapter([]);
    const all = [...Array(11).keys()];
    const plain = embed(peft, all) as Float32Array;
    for (const [adapter, ids] of [
      ["default", IDS],
      ["second", [2, 9]],
      ["third", [5]],
    ] as const) {
      peft.setAdapter(adapter);
      expect(peft.activeAdapters).toEqual([adapter]);
      const now = embed(peft, all) as Float32Array;
      const changed = all.filter((id) =>
        now.slice(id * HIDDEN, (id + 1) * HIDDEN).some((x, i) => x !== plain[id * HIDDEN + i]),
      );
      expect(changed).toEqual([...ids].toSorted((a, b) => a - b));
    }
  });

  test("A-8, A-9, A-10, A-51: disjoint adapters merge in order, overlapping ones are named", async () => {
    const peft = withThree(makeBase(name));
    peft.addAdapter("rival", config([9, 0]));
    const together = (await caught(() => peft.mergeAdapter({ adapterNames: ["second", "rival"] }))) as AdapterError;
    expect(together.code).toBe("OVERLAP");
    expect(together.fields).toMatchObject({ adapters: ["second", "rival"], ids: [9] });
    peft.setAdapter(["third", "second"]);
    const before = logitsOf(peft);
    await peft.mergeAdapter({ adapterNames: ["second"] });
    await peft.mergeAdapter({ adapterNames: ["third"] });
    expect(peft.mergedAdapters).toEqual(["second", "third"]);
    expect(logitsOf(peft)).toEqual(before);
    expect((await caught(() => peft.mergeAdapter({ adapterNames: ["rival"] }))).message).toContain("rival");
    expect(peft.mergedAdapters).toEqual(["second", "third"]);
  });

  test("A-12: a target that is not there is refused with the nearest name", async () => {
    const base = makeBase(name);
    const target_modules = [`${base.embeddingPath.split(".").at(-1)}s`];
    const error = await caught(() =>
      getPeftModel(base, new TrainableTokensConfig({ token_indices: [1], target_modules })),
    );
    expect(error).toMatchObject({ name: "TargetError", code: "NOT_FOUND" });
    expect(error.message).toContain(`did you mean "${base.embeddingPath}"`);
    expect([...base.namedModules()].some(([, m]) => m instanceof TrainableTokensLayer)).toBe(false);
  });

  test("A-16, A-18, A-19: an untied head is left alone; a tied one reads the rows, which exist and count once", () => {
    const base = makeBase(name);
    const plain = valuesOf(base);
    const peft = withRows(base);
    expect(peft.getLayerStatus().map((status) => status.name)).toEqual(
      isTied(name) ? [base.embeddingPath, "lm_head"] : [base.embeddingPath],
    );
    expect([...peft.namedParameters()].filter(([key]) => key.includes("trainable_tokens_delta"))).toHaveLength(1);
    expect(peft.getNbTrainableParameters().trainable).toBe(3 * HIDDEN);
    if (!isTied(name)) return;
    using _scope = new Scope();
    const unit = tensor(
      Array.from({ length: 36 }, (_, i) => Number(i % 7 === 0)),
      [6, 6],
    );
    const head = base.moduleAt("lm_head") as { forward(x: Tensor): Tensor } & typeof base;
    const logits = head.forward(unit as never) as unknown as Tensor; // [6, 11]: the columns are the rows of the table in effect
    const table = Array.from(plain.get(`${base.embeddingPath}.weight`)!);
    const rows = Array.from(rowsOf(peft));
    const columns = logits.dataSync();
    for (let id = 0; id < 11; id++) {
      const slot = IDS.indexOf(id);
      const expected =
        slot < 0 ? table.slice(id * HIDDEN, (id + 1) * HIDDEN) : rows.slice(slot * HIDDEN, (slot + 1) * HIDDEN);
      expect(Array.from({ length: 6 }, (_, j) => columns[j * 11 + id])).toEqual(expected);
    }
  });

  test("A-18: the tie survives mergeAndUnload", async () => {
    const merged = await withRows(makeBase(name)).mergeAndUnload();
    expect([...merged.namedParameters()].filter(([key]) => /embed_tokens|wte|lm_head/.test(key))).toHaveLength(
      isTied(name) ? 1 : 2,
    );
  });

  test("A-23: the base layer can be reached and is no part of the adapter's state", () => {
    const peft = withRows(makeBase(name));
    const { embeddingPath } = peft.getBaseModel();
    expect(embeddingOf(peft).base_layer.constructor.name).toBe("Embedding");
    expect([...getPeftModelStateDict(peft).keys()]).toEqual(
      [embeddingPath, ...(isTied(name) ? ["lm_head"] : [])].map(
        (path) => `base_model.model.${path}.trainable_tokens_delta`,
      ),
    );
  });

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
    expect(again.peftConfig["default"]!.token_indices).toEqual([2]);
    expect(new TextDecoder().decode(files.get("README.md"))).toContain("2 rows");
    const unknown = await caught(() => saved(peft, { selectedAdapters: ["nobody"] }));
    expect(unknown).toMatchObject({ code: "UNKNOWN" });
    expect(unknown.message).toContain("default, def, default_2");
  });

  test("A-50, A-56: over bfloat16 and float16 tables rows are float32, merging keeps the logits, unmerging the bytes", async () => {
    for (const dtype of ["bfloat16", "float16"] as const) {
      const base = AutoModelForCausalLM.fromConfig(BASES[name], { seed: 3, std: 0.5 });
      for (const [path, module] of base.namedModules()) {
        if (path !== base.embeddingPath && !(module instanceof Linear)) continue;
        const holder = module as Linear;
        holder.weight = tensor(Array.from(holder.weight.dataSync()), holder.weight.shape, dtype);
      }
      const plain = logitsOf(base);
      const bytes = valuesOf(base);
      const peft = getPeftModel(base, config());
      expect(embeddingOf(peft).trainable_tokens_delta["default"]!.dtype).toBe("float32");
      expect(logitsOf(peft), `${dtype} fresh`).toEqual(plain);
      train(peft, 3);
      const trained = logitsOf(peft);
      expect(trained).not.toEqual(plain);
      await peft.mergeAdapter({ safeMerge: true });
      expect(logitsOf(peft), `${dtype} merged`).toEqual(trained);
      peft.unmergeAdapter();
      expect(valuesOf(peft.unload()), `${dtype} unmerged`).toEqual(bytes);
      const kept = getPeftModel(base, config(), { autocastAdapterDtype: false });
      expect(embeddingOf(kept).trainable_tokens_delta["default"]!.dtype).toBe(dtype);
    }
  });

  test("A-52, A-54: a NaN row stops a safe merge with the base untouched; plain and safe merges write the same", async () => {
    const tables = [];
    for (const safeMerge of [false, true]) {
      const base = makeBase(name);
      const peft = withRows(base);
      await peft.mergeAdapter({ safeMerge });
      tables.push(embeddingOf(peft).table.dataSync());
    }
    expect(tables[0]).toEqual(tables[1]);
    const base = makeBase(name);
    const before = valuesOf(base);
    const peft = withRows(base);
    setRows(peft, "default", (slot, column) => (slot === 2 && column === 5 ? NaN : 1));
    const error = (await caught(() => peft.mergeAdapter({ safeMerge: true }))) as AdapterError;
    expect(error.code).toBe("NON_FINITE");
    expect(error.fields).toMatchObject({ name: "default", count: 1, row: 2, column: 5 });
    expect(valuesOf(peft.unload())).toEqual(before);
  });

  test("A-53: merging again does nothing but warn", async () => {
    const { codes, onWarning } = listener();
    const peft = withThree(makeBase(name), onWarning as () => void);
    await peft.mergeAdapter();
    const table = embeddingOf(peft).table.dataSync();
    await peft.mergeAdapter({ adapterNames: ["default", "third", "third"] });
    expect(peft.mergedAdapters).toEqual(["default", "third"]);
    expect(codes).toEqual(["ALREADY_MERGED"]);
    peft.unmergeAdapter();
    peft.unmergeAdapter();
    expect(codes).toEqual(["ALREADY_MERGED", "NOT_MERGED"]);
    expect(table).not.toEqual(embeddingOf(peft).table.dataSync());
  });

  test("mergeAndUnload keeps what was merged before, and says so", async () => {
    const { codes, onWarning } = listener();
    const peft = withThree(makeBase(name), onWarning as () => void);
    peft.setAdapter(["default", "second"]);
    const before = logitsOf(peft);
    peft.setAdapter(["second"]);
    await peft.mergeAdapter();
    const merged = await peft.mergeAndUnload({ adapterNames: ["default"] });
    expect(codes).toEqual(["ALREADY_MERGED"]);
    expect(logitsOf(merged)).toEqual(before);
  });

  test("A-57, A-59: disabling nests and restores, around promises too", async () => {
    const base = makeBase(name);
    const plain = logitsOf(base);
    const peft = withRows(base);
    const trained = logitsOf(peft);
    {
      using _outer = peft.disableAdapter();
      expect(logitsOf(peft)).toEqual(plain);
      {
        using _inner = peft.disableAdapter();
        expect(logitsOf(peft)).toEqual(plain);
      }
      expect(peft.enabled).toBe(false);
    }
    expect(logitsOf(peft)).toEqual(trained);
    const later = peft.withAdapterDisabled(async () => {
      await Promise.resolve();
      return logitsOf(peft);
    });
    expect(peft.enabled).toBe(false);
    expect(await later).toEqual(plain);
    expect(peft.enabled).toBe(true);
    await caught(() => peft.withAdapterDisabled(() => Promise.reject(new Error("no"))));
    await caught(() =>
      peft.withAdapterDisabled(() => {
        throw new Error("no");
      }),
    );
    expect(peft.enabled).toBe(true);
    peft.disableAdapterLayers();
    peft.withAdapterDisabled(() => {});
    expect(peft.enabled).toBe(false);
  });

  test("A-61: deleting the active, an inactive, an unknown and a merged adapter", async () => {
    const { codes, onWarning } = listener();
    const peft = withThree(makeBase(name), onWarning as () => void);
    peft.deleteAdapter("third");
    expect(peft.activeAdapters).toEqual(["default"]);
    expect((await caught(() => peft.deleteAdapter("third"))).code).toBe("UNKNOWN");
    await peft.mergeAdapter();
    expect((await caught(() => peft.deleteAdapter("default"))).code).toBe("MERGED");
    peft.unmergeAdapter();
    peft.deleteAdapter("default");
    expect(codes).toEqual(["ACTIVE_DELETED"]);
    expect(peft.activeAdapters).toEqual(["second"]);
  });

  test("A-61: what becomes active after a deletion shares no id with what is merged", async () => {
    const peft = withThree(makeBase(name));
    peft.addAdapter("a rival", config([7]));
    peft.setAdapter("third");
    await peft.mergeAdapter({ adapterNames: ["default"] });
    peft.deleteAdapter("third");
    expect(peft.activeAdapters).toEqual(["default"]);
    const merged = logitsOf(peft);
    peft.unmergeAdapter();
    expect(logitsOf(peft)).toEqual(merged);
  });

  test("A-64: recomputing the forward pass gives the same gradients", () => {
    const gradients = (run: (peft: PeftModel) => Tensor) => {
      const peft = withRows(makeBase(name));
      using _scope = new Scope();
      backward(run(peft));
      return tokenParameters(peft)[0]!.grad!.dataSync();
    };
    const plain = gradients((peft) => peft.forward(BATCH).loss!);
    const again = gradients((peft) => checkpoint(() => peft.forward(BATCH).loss!));
    expect(again.some((x) => x !== 0)).toBe(true);
    expect(again).toEqual(plain);
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
    expect(logitsOf(fresh)).toEqual(logitsOf(peft));
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
    expect(logitsOf(fresh)).toEqual(logitsOf(peft));
  });

  test("A-67, A-68: two active adapters: the same ids are refused, different ones are both in effect", async () => {
    const peft = withThree(makeBase(name));
    peft.addAdapter("rival", config([9]));
    expect(await caught(() => peft.setAdapter(["second", "rival"]))).toMatchObject({ code: "OVERLAP" });
    expect(peft.activeAdapters).toEqual(["default"]);
    const alone = ["second", "third"].map((adapter) => (peft.setAdapter(adapter), logitsOf(peft)));
    peft.setAdapter(["second", "third"]);
    const both = logitsOf(peft);
    for (const logits of alone) expect(both).not.toEqual(logits);
  });

  test("A-69: of three adapters deleting one takes its ids, rows and originals, and frees them", () => {
    const base = makeBase(name);
    const { live } = defaultBackend();
    const peft = withThree(base);
    peft.deleteAdapter("second");
    const layer = embeddingOf(peft);
    expect(layer.adapters).toEqual(["default", "third"]);
    expect(Object.keys(layer.trainable_tokens_delta)).toEqual(["default", "third"]);
    expect(defaultBackend().live).toBe(live + 4);
    for (const status of peft.getLayerStatus()) expect(status.available_adapters).toEqual(["default", "third"]);
    peft.unload();
    expect(defaultBackend().live).toBe(live);
  });

  test("A-70: setRequiresGrad toggles flags and nothing else", () => {
    const peft = withThree(makeBase(name));
    const before = logitsOf(peft);
    peft.setRequiresGrad(["second"]);
    peft.setRequiresGrad("default", false);
    expect(["default", "second", "third"].map((adapter) => peft.requiresGradOf(adapter))).toEqual([false, true, false]);
    expect(peft.activeAdapters).toEqual(["default"]);
    expect(logitsOf(peft)).toEqual(before);
  });

  test("A-71: inferenceMode and isTrainable set the flags of a first and a second adapter", async () => {
    const frozen = getPeftModel(
      makeBase(name),
      new TrainableTokensConfig({ token_indices: IDS, inference_mode: true }),
    );
    expect(frozen.requiresGradOf("default")).toBe(false);
    const peft = withThree(makeBase(name));
    peft.setAdapter("second", { inferenceMode: true });
    expect(tokenParameters(peft)).toEqual([]);
    const files = await saved(peft);
    for (const isTrainable of [true, false]) {
      const loaded = await PeftModel.fromPretrained(makeBase(name), files, { isTrainable });
      await loaded.loadAdapter(files, "second", { isTrainable, subfolder: "second" });
      expect(["default", "second"].map((adapter) => loaded.requiresGradOf(adapter))).toEqual([
        isTrainable,
        isTrainable,
      ]);
    }
  });

  test("A-72: generate runs through the rows, and its scores are forward's", async () => {
    const peft = withRows(makeBase(name));
    const [ids] = await peft.generate({ input_ids: [[7, 1]], max_new_tokens: 5, eos_token_id: null });
    for (let n = 2; n < 7; n++) {
      const last = Array.from(logitsOf(peft, [ids!.slice(0, n)])).slice(-11);
      expect(last.indexOf(Math.max(...last))).toBe(ids![n]);
    }
    const twin = await withRows(makeBase(name)).mergeAndUnload();
    expect(await twin.generate({ input_ids: [[7, 1]], max_new_tokens: 5, eos_token_id: null })).toEqual([ids]);
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
      num_adapter_layers: isTied(name) ? 2 : 1,
      trainable_params: 0,
    });
    peft.enableAdapterLayers();
    expect(peft.getModelStatus().requires_grad).toEqual({ default: true, second: false, third: false });
  });

  test("A-76: embedding and head named together: one set of rows on a tie, two without", () => {
    const base = makeBase(name);
    const target_modules = [base.embeddingPath.split(".").at(-1)!, "lm_head"];
    const peft = getPeftModel(base, new TrainableTokensConfig({ token_indices: IDS, target_modules }));
    expect(tokenParameters(peft)).toHaveLength(isTied(name) ? 1 : 2);
    expect(logitsOf(peft)).toEqual(logitsOf(makeBase(name)));
  });

  test("A-78: added tokens train, and the file is smaller than the table", async () => {
    const base = makeBase(name);
    base.resizeTokenEmbeddings(13);
    const peft = getPeftModel(base, config([11, 12]));
    const before = rowsOf(peft);
    peft.backward(peft.forward({ input_ids: [[11, 1, 12]], labels: [[11, 1, 12]] }).loss!);
    new AdamW(tokenParameters(peft), { lr: 0.1 }).step();
    expect(rowsOf(peft).every((x, i) => x !== before[i])).toBe(true);
    expect((await saved(peft)).get("adapter_model.safetensors")!.length).toBeLessThan(13 * HIDDEN * 4 + 200);
  });

  test("backward says why there is nothing to train", async () => {
    const peft = withThree(makeBase(name));
    const trial = () => caught(() => peft.backward(peft.forward(BATCH).loss!));
    await peft.mergeAdapter();
    expect(await trial()).toMatchObject({
      code: "NOTHING_TO_TRAIN",
      message: expect.stringContaining("merged default"),
    });
    peft.unmergeAdapter();
    peft.disableAdapterLayers();
    expect(await trial()).toMatchObject({ code: "NOTHING_TO_TRAIN", message: expect.stringContaining("disabled") });
    peft.enableAdapterLayers();
    peft.setAdapter([]);
    peft.setRequiresGrad("third");
    expect(await trial()).toMatchObject({
      code: "NOTHING_TO_TRAIN",
      message: expect.stringContaining("trainable third, active none"),
    });
    peft.setAdapter("third");
    peft.backward(peft.forward(BATCH).loss!);
    expect(tokenParameters(peft)[0]!.grad).not.toBeNull();
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
    expect([layer.num_embeddings, layer.embedding_dim]).toEqual([11, HIDDEN]);
  });

  test("live buffers stay level over 200 training steps", () => {
    const peft = getPeftModel(makeBase(name), config());
    const rows = tokenParameters(peft);
    const optimizer = new AdamW(rows, { lr: 0.01 });
    const live: number[] = [];
    for (let step = 0; step < 200; step++) {
      {
        using _step = new Scope();
        backward(peft.forward(BATCH).loss!);
        optimizer.step();
      }
      live.push(defaultBackend().live);
    }
    expect(new Set(live.slice(1)).size).toBe(1);
  });
});

describe("config", () => {
  test("A-48: it is constructed, goes through JSON, and keeps the order of its ids", () => {
    const given = {
      token_indices: Int32Array.of(9, 2, 5),
      target_modules: ["wte"],
      init_weights: false,
      task_type: "CAUSAL_LM",
    } as const;
    const made = new TrainableTokensConfig(given);
    expect(made.token_indices).toEqual([9, 2, 5]);
    const json = JSON.parse(JSON.stringify(made));
    expect(json).toEqual({
      ...given,
      token_indices: [9, 2, 5],
      peft_type: "TRAINABLE_TOKENS",
      auto_mapping: null,
      base_model_name_or_path: null,
      inference_mode: false,
      peft_version: "0.21.0",
      revision: null,
    });
    expect(JSON.parse(JSON.stringify(TrainableTokensConfig.fromFile(json, () => {})))).toEqual(json);
    expect(
      Object.keys(JSON.parse(JSON.stringify(new TrainableTokensConfig({ token_indices: [1], peft_version: null })))),
    ).not.toContain("peft_version");
  });

  test("A-82: each wrong value has its code and names what may stand there", async () => {
    const wrong = (options: object) =>
      caught(() => new TrainableTokensConfig({ token_indices: [1], ...options } as never));
    const taskType = await wrong({ task_type: "CHAT" });
    expect(taskType.code).toBe("TASK_TYPE");
    for (const known of TASK_TYPES) expect(taskType.message).toContain(known);
    expect(await wrong({ target_module: "wte" })).toMatchObject({
      code: "UNKNOWN_KEY",
      fields: { key: "target_module" },
      message: expect.stringContaining('did you mean "target_modules"?'),
    });
    for (const key of ["modules_to_save", "bias", "exclude_modules", "ensure_weight_tying"])
      expect(await wrong({ [key]: null })).toMatchObject({ code: "UNKNOWN_KEY", fields: { key } });
    expect(await wrong({ target_modules: 3 })).toMatchObject({ code: "ARGUMENT" });
    expect(await wrong({ init_weights: "yes" })).toMatchObject({ code: "ARGUMENT" });
    const merge = getPeftModel(makeBase("llama"), config()).mergeAdapter({ adapterNames: "default" as never });
    expect(await caught(() => merge)).toMatchObject({ code: "ARGUMENT" });
  });

  test.each(["", "a.b", "a/b", "a\\b", "__base__"])("an adapter cannot be called %j", async (adapterName) => {
    expect(await caught(() => getPeftModel(makeBase("llama"), config(), { adapterName }))).toMatchObject({
      code: "NAME",
    });
  });

  test("a wrapped model is not wrapped again", async () => {
    const base = makeBase("llama");
    getPeftModel(base, config());
    expect(await caught(() => getPeftModel(base, config()))).toMatchObject({
      code: "ALREADY_WRAPPED",
      message: expect.stringContaining("addAdapter"),
    });
  });
});
