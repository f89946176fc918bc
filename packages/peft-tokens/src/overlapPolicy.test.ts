import { backward } from "@neolog/autograd";
import { Scope, defaultBackend, setDefaultBackend } from "@neolog/tensor";
import { computingBackends } from "@neolog/tensor/testing";
import { beforeAll, describe, expect, test } from "vitest";
import { type PeftModel, TrainableTokensConfig, getPeftModel } from "./index.ts";
import { BATCH, type BaseName, caught, logitsOf, makeBase, setRows, valuesOf } from "./testing.ts";

const NAMES: BaseName[] = ["llama", "llama tied", "gpt2 untied"];
const A = [7, 1, 4];
const B = [4, 2, 7, 9];
const rowOfA = (slot: number, column: number): number => Math.sin(7 * slot + column);
const rowOfB = (slot: number, column: number): number => Math.cos(3 * slot - column);

/** "a" and "b" share 7 and 4; "c" shares 9 with "b". */
function withShared(base: BaseName): PeftModel {
  const config = (token_indices: number[]) => new TrainableTokensConfig({ token_indices });
  const peft = getPeftModel(makeBase(base), config(A), { adapterName: "a", onWarning: () => {} });
  peft.addAdapter("b", config(B));
  peft.addAdapter("c", config([9]));
  setRows(peft, "a", rowOfA);
  setRows(peft, "b", rowOfB);
  setRows(peft, "c", () => 0.3);
  return peft;
}
/** The logits of one adapter that has the union, with the owner's rows at shared ids. */
function union(base: BaseName, owner: "a" | "b"): Float32Array {
  const ids = [...new Set([...A, ...B])];
  const peft = getPeftModel(makeBase(base), new TrainableTokensConfig({ token_indices: ids }));
  setRows(peft, "default", (slot, column) => {
    const id = ids[slot]!;
    const fromA = owner === "a" ? A.includes(id) : !B.includes(id);
    return fromA ? rowOfA(A.indexOf(id), column) : rowOfB(B.indexOf(id), column);
  });
  return logitsOf(peft);
}

describe.each(await computingBackends())("9.10 shared ids on $title", ({ backend }) => {
  beforeAll(() => setDefaultBackend(backend));

  test.each(NAMES)("%s: belong to the first or the last named", (base) => {
    const peft = withShared(base);
    const [a, b] = [union(base, "a"), union(base, "b")];
    expect(a).not.toEqual(b);
    peft.setAdapter(["a", "b"], { overlap: "first" });
    expect(logitsOf(peft)).toEqual(a);
    peft.setAdapter(["a", "b"], { overlap: "last" });
    expect(logitsOf(peft)).toEqual(b);
    peft.setAdapter(["b", "a"], { overlap: "first" });
    expect(logitsOf(peft)).toEqual(b);
  });

  test.each(NAMES)("%s: the owner alone gets their gradient", (base) => {
    const peft = withShared(base);
    peft.setAdapter(["a", "b"], { overlap: "first" });
    {
      using _step = new Scope();
      backward(peft.forward(BATCH).loss!);
      for (const layer of peft.layers().values()) {
        const gradients = ["a", "b"].map((name) => layer.trainable_tokens_delta[name]!.grad!.dataSync());
        const isZero = (name: 0 | 1, slot: number): boolean =>
          gradients[name]!.slice(slot * 6, slot * 6 + 6).every((value) => value === 0);
        expect(A.map((_, slot) => isZero(0, slot))).toEqual([false, false, false]);
        expect(B.map((_, slot) => isZero(1, slot))).toEqual([true, false, true, false]);
      }
    }
  });

  test.each(NAMES)(
    "P-6 %s: merging any of them, in any order, changes no logit, and unmerging gives the table back",
    async (base) => {
      for (const overlap of ["first", "last"] as const) {
        const peft = withShared(base);
        const table = valuesOf(peft.getBaseModel());
        peft.setAdapter(["a", "b"], { overlap });
        const expected = logitsOf(peft);
        for (const order of [["a"], ["b"], ["a", "b"], ["b", "a"]]) {
          for (const name of order) {
            await peft.mergeAdapter({ adapterNames: [name] });
            expect(logitsOf(peft)).toEqual(expected);
          }
          peft.disableAdapterLayers();
          expect(logitsOf(peft)).toEqual(logitsOf(makeBase(base)));
          peft.enableAdapterLayers();
          peft.unmergeAdapter();
        }
        expect(valuesOf(peft.getBaseModel())).toEqual(table);
        await peft.mergeAdapter();
        peft.getBaseModel();
        expect(logitsOf(await peft.mergeAndUnload({ adapterNames: ["a", "b"] }))).toEqual(expected);
      }
    },
  );

  test("rows of a tied head yield to those that reach it through the embedding, where these own them", () => {
    const peft = getPeftModel(makeBase("llama tied"), new TrainableTokensConfig({ token_indices: [1, 2] }));
    setRows(peft, "default");
    const alone = logitsOf(peft);
    peft.addAdapter("head", new TrainableTokensConfig({ token_indices: [1, 2], target_modules: ["lm_head"] }));
    setRows(peft, "head", () => 0.3);
    setRows(peft, "default");
    peft.setAdapter(["head", "default"], { overlap: "last" });
    expect(logitsOf(peft)).toEqual(alone);
    peft.setAdapter(["head", "default"], { overlap: "first" });
    expect(logitsOf(peft)).not.toEqual(alone);
  });

  test("ownership follows the active list", () => {
    const peft = withShared("llama tied");
    peft.setAdapter(["a", "b"], { overlap: "last" });
    peft.deleteAdapter("b");
    const alone = logitsOf(peft);
    peft.setAdapter("a");
    expect(logitsOf(peft)).toEqual(alone);
  });

  test("stay an error where no policy was asked for, or outside it", async () => {
    const peft = withShared("llama");
    expect(await caught(() => peft.setAdapter(["a", "b"]))).toMatchObject({ code: "OVERLAP" });
    peft.setAdapter(["a", "b"], { overlap: "first" });
    expect(await caught(() => peft.mergeAdapter({ adapterNames: ["c"] }))).toMatchObject({ code: "OVERLAP" });
    expect(await caught(() => peft.setAdapter(["a", "b"]))).toMatchObject({ code: "OVERLAP" });
    expect(peft.activeAdapters).toEqual(["a", "b"]);
    const wrong = await caught(() => peft.setAdapter("c", { overlap: "mean" as "first" }));
    expect(wrong).toMatchObject({ name: "ConfigError", code: "ARGUMENT" });
    expect(wrong.message).toBe('overlap: must be "error", "first" or "last", got "mean"');
  });

  test("keep nothing allocated", () => {
    const peft = withShared("llama tied");
    peft.setAdapter(["a", "b"], { overlap: "first" });
    const { live } = defaultBackend();
    logitsOf(peft);
    expect(defaultBackend().live).toBe(live);
  });
});
