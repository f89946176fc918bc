import { AdamW } from "@neolog/autograd";
import { Scope, defaultBackend, setDefaultBackend } from "@neolog/tensor";
import { computingBackends } from "@neolog/tensor/testing";
import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import {
  type PeftModel,
  TrainableTokensConfig,
  type TrainableTokensLayer,
  getPeftModel,
  tokenParameters,
} from "./index.ts";
import { BATCH, type BaseName, caught, logitsOf, makeBase, setRows } from "./testing.ts";

const NAMES: BaseName[] = ["llama", "llama tied", "gpt2 untied"];
const IDS = [7, 1, 4];
const config = (token_indices = IDS) => new TrainableTokensConfig({ token_indices });
const value = (slot: number, column: number): number => Math.sin(7 * slot + column);
function adapted(base: BaseName): PeftModel {
  const peft = getPeftModel(makeBase(base), config(), { onWarning: () => {} });
  setRows(peft, "default", value);
  return peft;
}
const layerOf = (peft: PeftModel): TrainableTokensLayer => [...peft.layers().values()][0]!;
/** id → row */
const rowsOf = (peft: PeftModel, name = "default"): Map<number, number[]> => {
  const layer = layerOf(peft);
  const values = layer.trainable_tokens_delta[name]!.dataSync();
  return new Map([...layer.indicesOf(name)].map((id, i) => [id, Array.from(values.slice(i * 6, i * 6 + 6))]));
};
const originalsOf = (peft: PeftModel): number[] => [...layerOf(peft).originalOf("default").dataSync()];
const snapshot = (peft: PeftModel) => ({
  rows: rowsOf(peft),
  originals: originalsOf(peft),
  config: peft.peftConfig["default"]!.toJSON(),
  logits: logitsOf(peft),
  active: peft.activeAdapters,
});

describe.each(await computingBackends())("9.9 tokens in and out of an adapter, on $title", ({ backend }) => {
  beforeAll(() => setDefaultBackend(backend));

  test.each(NAMES)(
    "A-90 %s: extending keeps every row and changes no logit while the new rows are the base's",
    (base) => {
      const peft = adapted(base);
      const before = snapshot(peft);
      peft.extendAdapter("default", [9, 0]);
      expect(logitsOf(peft)).toEqual(before.logits);
      expect(peft.peftConfig["default"]).toMatchObject({ token_indices: [7, 1, 4, 9, 0] });
      const table = layerOf(peft).table.dataSync();
      expect(rowsOf(peft)).toEqual(
        new Map([...before.rows, ...[9, 0].map((id) => [id, Array.from(table.slice(id * 6, id * 6 + 6))] as const)]),
      );
      expect(tokenParameters(peft)[0]!.shape).toEqual([5, 6]);
      expect(tokenParameters(peft)[0]!.requiresGrad).toBe(true);
    },
  );

  test.each(NAMES)("A-90 %s: removing gives the base's rows back to what is removed, and to nothing else", (base) => {
    const peft = adapted(base);
    peft.removeTokens("default", [1]);
    expect([...rowsOf(peft).keys()]).toEqual([7, 4]);
    const other = getPeftModel(makeBase(base), config([7, 4]));
    setRows(other, "default", (slot, column) => value([0, 2][slot]!, column));
    expect(logitsOf(peft)).toEqual(logitsOf(other));
    expect(originalsOf(peft)).toEqual(originalsOf(other));
  });

  test.each(NAMES)("A-90 %s: remapping keeps trained rows and reads the base's again", (base) => {
    const peft = adapted(base);
    peft.remapTokens(
      "default",
      new Map([
        [7, 2],
        [1, 7],
      ]),
    );
    const other = getPeftModel(makeBase(base), config([2, 7, 4]));
    setRows(other, "default", value);
    expect(snapshot(peft)).toEqual(snapshot(other));
    peft.disableAdapterLayers();
    expect(logitsOf(peft)).toEqual(logitsOf(makeBase(base)));
  });

  test("P-25 remapping by a permutation and its inverse is the identity", () => {
    const peft = adapted("llama tied");
    const before = snapshot(peft);
    fc.assert(
      fc.property(fc.shuffledSubarray([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], { minLength: 11 }), (permutation) => {
        peft.remapTokens("default", new Map(permutation.map((to, from) => [from, to])));
        peft.remapTokens("default", new Map(permutation.map((to, from) => [to, from])));
        expect(snapshot(peft)).toEqual(before);
      }),
      { numRuns: 20 },
    );
  });

  test("P-26 extending by ids and removing them is the identity", () => {
    const peft = adapted("llama tied");
    const before = snapshot(peft);
    fc.assert(
      fc.property(fc.shuffledSubarray([0, 2, 3, 5, 6, 8, 9, 10], { minLength: 1 }), fc.boolean(), (ids, random) => {
        peft.extendAdapter("default", ids, random ? { init: "random", seed: 3 } : {});
        peft.removeTokens("default", ids);
        expect(snapshot(peft)).toEqual(before);
      }),
      { numRuns: 20 },
    );
  });

  test("the optimizer's rows follow", () => {
    const trained = (edit: (peft: PeftModel, optimizer: AdamW) => void): Map<number, number[]> => {
      const peft = adapted("llama");
      const optimizer = new AdamW(tokenParameters(peft), { lr: 0.05 });
      const step = (): void => {
        using _step = new Scope();
        peft.backward(peft.forward(BATCH).loss!);
        optimizer.step();
        optimizer.zeroGrad();
      };
      step();
      step();
      edit(peft, optimizer);
      step();
      return rowsOf(peft);
    };
    const plain = trained(() => {});
    const edited = trained((peft, optimizer) => {
      peft.extendAdapter("default", [9], { optimizer });
      peft.removeTokens("default", [9], { optimizer });
    });
    expect(edited).toEqual(plain);
    const extended = trained((peft, optimizer) => peft.extendAdapter("default", [9], { optimizer }));
    for (const [id, row] of plain) expect(extended.get(id)).toEqual(row);
  });

  test("nothing stays allocated", () => {
    const peft = adapted("llama");
    const { live } = defaultBackend();
    peft.extendAdapter("default", [9, 0], { init: "mean" });
    peft.remapTokens("default", new Map([[9, 8]]));
    peft.removeTokens("default", [8, 0]);
    expect(defaultBackend().live).toBe(live);
  });

  test("says what does not fit and changes nothing", async () => {
    const peft = adapted("llama");
    peft.addAdapter("second", config([2]));
    peft.setAdapter(["default", "second"]);
    const before = snapshot(peft);
    const cases: [() => void, string, string][] = [
      [
        () => peft.extendAdapter("default", [1, 9]),
        "INDEX_DUPLICATE",
        "extendAdapter: default must not have 1 already",
      ],
      [() => peft.extendAdapter("default", [11]), "INDEX_RANGE", "must be below the 11 rows"],
      [() => peft.extendAdapter("default", []), "INDICES_EMPTY", "at least one"],
      [() => peft.extendAdapter("default", [2]), "OVERLAP", "sharing 2"],
      [() => peft.extendAdapter("default", [9], { init: { kind: "copy", from: [1, 2] } }), "ARGUMENT", "copy.from"],
      [() => peft.extendAdapter("third", [9]), "UNKNOWN", "third"],
      [() => peft.removeTokens("default", [7, 9]), "ARGUMENT", "removeTokens: default must have the ids, got 9"],
      [() => peft.removeTokens("default", [7, 1, 4]), "INDICES_EMPTY", "must keep a token, got all of them; delete"],
      [() => peft.remapTokens("default", new Map([[7, 1]])), "INDEX_DUPLICATE", "1 at position 1"],
      [() => peft.remapTokens("default", new Map([[7, 99]])), "INDEX_RANGE", "99"],
      [() => peft.remapTokens("default", new Map([[7, 2]])), "OVERLAP", "sharing 2"],
    ];
    for (const [run, code, message] of cases) {
      const error = await caught(run);
      expect(error).toMatchObject({ code });
      expect(error.message).toContain(message);
    }
    expect(snapshot(peft)).toEqual(before);
    await peft.mergeAdapter({ adapterNames: ["default"] });
    for (const run of [
      () => peft.extendAdapter("default", [9]),
      () => peft.removeTokens("default", [1]),
      () => peft.remapTokens("default", new Map([[1, 9]])),
    ]) {
      expect(await caught(run)).toMatchObject({ name: "AdapterError", code: "MERGED" });
    }
    peft.unmergeAdapter();
    expect(snapshot(peft)).toEqual(before);
  });
});
