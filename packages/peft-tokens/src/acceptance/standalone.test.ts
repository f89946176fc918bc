import { beforeAll, describe, expect, test } from "vitest";
import { Scope, type Tensor, setDefaultBackend, tensor } from "@neolog/tensor";
import {
  type AdapterError,
  PeftModel,
  TrainableTokensConfig,
  TrainableTokensLayer,
  getPeftModel,
  getPeftModelStateDict,
  tokenParameters,
} from "../index.ts";
import { caught, isTied, listener, logitsOf, makeBase, valuesOf } from "../testing.ts";
import {
  ALL_IDS,
  HIDDEN,
  IDS,
  VOCAB,
  config,
  embed,
  embeddingOf,
  everyWorld,
  expectSame,
  rowsOf,
  saved,
  withRows,
  withThree,
} from "./world.ts";

describe.each(await everyWorld())("PEFT's own tests of standalone adapters, $name on $title", ({ name, backend }) => {
  beforeAll(() => setDefaultBackend(backend));

  test("A-1: a saved adapter on a fresh base changes its ids and leaves the table", async () => {
    const peft = withRows(makeBase(name));
    const base = makeBase(name);
    const table = valuesOf(base).get(`${base.embeddingPath}.weight`)!;
    const loaded = await PeftModel.fromPretrained(base, await saved(peft));
    const all = ALL_IDS;
    expect(embed(loaded, all)).toEqual(embed(peft, all));
    for (const id of all) {
      const row = Array.from(table).slice(id * HIDDEN, (id + 1) * HIDDEN);
      if (IDS.includes(id)) expect([...(embed(loaded, [id]) as Float32Array)]).not.toEqual(row);
      else expect([...(embed(loaded, [id]) as Float32Array)]).toEqual(row);
    }
    expect(embeddingOf(loaded).table.dataSync()).toEqual(table);
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
    expectSame(logitsOf(merged), before);
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
    const all = ALL_IDS;
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
    expectSame(logitsOf(peft), before);
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
    expect(peft.getLayerStatus().map((status) => status.name)).toEqual([base.embeddingPath, ...base.tiedPaths]);
    expect([...peft.namedParameters()].filter(([key]) => key.includes("trainable_tokens_delta"))).toHaveLength(1);
    expect(peft.getNbTrainableParameters().trainable).toBe(3 * HIDDEN);
    if (!isTied(name)) return;
    using _scope = new Scope();
    const unit = tensor(
      Array.from({ length: HIDDEN * HIDDEN }, (_, i) => Number(i % (HIDDEN + 1) === 0)),
      [HIDDEN, HIDDEN],
    );
    const head = base.moduleAt(base.headPath) as { forward(x: Tensor): Tensor } & typeof base;
    const logits = head.forward(unit as never) as unknown as Tensor; // [hidden, vocab]: the columns are the rows of the table in effect
    const table = Array.from(plain.get(`${base.embeddingPath}.weight`)!);
    const rows = Array.from(rowsOf(peft));
    const columns = logits.dataSync();
    for (const id of ALL_IDS) {
      const slot = IDS.indexOf(id);
      const expected =
        slot < 0 ? table.slice(id * HIDDEN, (id + 1) * HIDDEN) : rows.slice(slot * HIDDEN, (slot + 1) * HIDDEN);
      expect(Array.from({ length: HIDDEN }, (_, j) => columns[j * VOCAB + id])).toEqual(expected);
    }
  });

  test("A-18: the tie survives mergeAndUnload", async () => {
    const merged = await withRows(makeBase(name)).mergeAndUnload();
    const tables = [merged.embeddingPath, merged.headPath].map((path) => `${path}.weight`);
    expect([...merged.namedParameters()].filter(([key]) => tables.includes(key))).toHaveLength(isTied(name) ? 1 : 2);
  });

  test("A-23: the base layer can be reached and is no part of the adapter's state", () => {
    const peft = withRows(makeBase(name));
    const { embeddingPath, tiedPaths } = peft.getBaseModel();
    expect(embeddingOf(peft).base_layer.constructor.name).toBe("Embedding");
    expect([...getPeftModelStateDict(peft).keys()]).toEqual(
      [embeddingPath, ...tiedPaths].map((path) => `base_model.model.${path}.trainable_tokens_delta`),
    );
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

  test("A-76: embedding and head named together: one set of rows on a tie, two without", () => {
    const base = makeBase(name);
    const target_modules = [base.embeddingPath.split(".").at(-1)!, base.headPath];
    const peft = getPeftModel(base, new TrainableTokensConfig({ token_indices: IDS, target_modules }));
    expect(tokenParameters(peft)).toHaveLength(isTied(name) ? 1 : 2);
    expectSame(logitsOf(peft), logitsOf(makeBase(name)));
  });
});
