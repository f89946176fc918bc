import { setDefaultBackend } from "@neolog/tensor";
import { computingBackends } from "@neolog/tensor/testing";
import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { LoraConfig, type LoraLayer, type PeftModel, TrainableTokensConfig, getPeftModel } from "./index.ts";
import { type BaseName, caught, logitsOf, makeBase, setRows } from "./testing.ts";

const NAMES: BaseName[] = ["llama", "llama tied", "gpt2 untied"];
const A = [7, 1, 4];
const B = [4, 2, 7, 9];
const config = (token_indices: number[]) => new TrainableTokensConfig({ token_indices });

function withTwo(base: BaseName): PeftModel {
  const peft = getPeftModel(makeBase(base), config(A), { adapterName: "a", onWarning: () => {} });
  peft.addAdapter("b", config(B));
  setRows(peft, "a");
  setRows(peft, "b", (slot, column) => Math.cos(3 * slot - column));
  return peft;
}
/** id → row, trained or the base's. */
function rowsOf(peft: PeftModel, name: string, which: "trained" | "original" = "trained"): Map<number, number[]> {
  const [layer] = peft.layers().values();
  const rows = which === "trained" ? layer!.trainable_tokens_delta[name]! : layer!.originalOf(name);
  const values = [...rows.dataSync()];
  return new Map([...layer!.indicesOf(name)].map((id, i) => [id, values.slice(i * 6, i * 6 + 6)]));
}

describe.each(await computingBackends())("9.11 combinations on $title", ({ backend }) => {
  beforeAll(() => setDefaultBackend(backend));

  test.each(NAMES)("T-14 %s: rows are o + Σ w(δ − o), ids the union in order of first appearance", async (base) => {
    const peft = withTwo(base);
    await peft.addWeightedAdapter(["b", "a"], [0.7, -0.4], "c");
    const [a, b, c] = ["a", "b", "c"].map((name) => rowsOf(peft, name)) as [
      Map<number, number[]>,
      Map<number, number[]>,
      Map<number, number[]>,
    ];
    const original = new Map([...rowsOf(peft, "a", "original"), ...rowsOf(peft, "b", "original")]);
    expect([...c.keys()]).toEqual([4, 2, 7, 9, 1]);
    for (const [id, row] of c) {
      row.forEach((value, j) => {
        const o = original.get(id)![j]!;
        const expected = o + 0.7 * ((b.get(id)?.[j] ?? o) - o) - 0.4 * ((a.get(id)?.[j] ?? o) - o);
        expect(Math.abs(value - expected)).toBeLessThanOrEqual(1e-6);
      });
    }
    expect(peft.activeAdapters).toEqual(["a"]);
    expect(peft.requiresGradOf("c")).toBe(false);
  });

  test.each(NAMES)("P-24 %s: weight 1 is a copy, 0 the base, shares of equal adapters that adapter", async (base) => {
    const peft = withTwo(base);
    await peft.addWeightedAdapter(["a"], [1], "copy");
    expect(rowsOf(peft, "copy")).toEqual(rowsOf(peft, "a"));
    await peft.addWeightedAdapter(["a"], [0], "none");
    expect(rowsOf(peft, "none")).toEqual(rowsOf(peft, "a", "original"));
    peft.setAdapter("none");
    expect(logitsOf(peft)).toEqual(logitsOf(makeBase(base)));
    await fc.assert(
      fc.asyncProperty(fc.double({ min: -3, max: 3, noNaN: true }), async (weight) => {
        await peft.addWeightedAdapter(["a", "copy"], [weight, 1 - weight], "same");
        const [same, a] = [rowsOf(peft, "same"), rowsOf(peft, "a")];
        for (const [id, row] of a) row.forEach((x, j) => expect(same.get(id)![j]).toBeCloseTo(x, 5));
        peft.deleteAdapter("same");
      }),
      { numRuns: 20 },
    );
  });

  test.each(["first", "last", "mean"] as const)("a plain union with %s", async (overlap) => {
    const peft = withTwo("llama tied");
    await peft.combineAdapters(["a", "b"], "c", { overlap });
    const [a, b, c] = ["a", "b", "c"].map((name) => rowsOf(peft, name)) as [
      Map<number, number[]>,
      Map<number, number[]>,
      Map<number, number[]>,
    ];
    expect([...c.keys()]).toEqual([7, 1, 4, 2, 9]);
    for (const [id, row] of c) {
      const [first, last] = [a.get(id) ?? b.get(id)!, b.get(id) ?? a.get(id)!];
      const mean = first.map((x, j) => Math.fround((x + last[j]!) / 2));
      expect(row).toEqual({ first, last, mean }[overlap]);
    }
    if (overlap === "mean") return;
    peft.setAdapter(["a", "b"], { overlap });
    const both = logitsOf(peft);
    peft.setAdapter("c");
    expect(logitsOf(peft)).toEqual(both);
  });

  test("says what does not fit and changes nothing", async () => {
    const peft = withTwo("llama");
    const before = logitsOf(peft);
    const cases: [() => Promise<void>, string, string][] = [
      [() => peft.combineAdapters(["a", "b"], "c"), "OVERLAP", "got a and b sharing 4"],
      [() => peft.combineAdapters(["a"], "c", { overlap: "sum" as "mean" }), "ARGUMENT", 'got "sum"'],
      [() => peft.addWeightedAdapter(["a", "b"], [1], "c"), "ARGUMENT", "one weight for each of 2 adapters, got [1]"],
      [() => peft.addWeightedAdapter(["a"], [NaN], "c"), "ARGUMENT", "one weight"],
      [() => peft.addWeightedAdapter(["a"], [1], "c", { combinationType: "svd" as "cat" }), "ARGUMENT", 'got "svd"'],
      [() => peft.addWeightedAdapter(["a", "a"], [1, 1], "c"), "ARGUMENT", "each once, got a, a"],
      [() => peft.addWeightedAdapter([], [], "c"), "ARGUMENT", "got none"],
      [() => peft.addWeightedAdapter(["x"], [1], "c"), "UNKNOWN", '"x"'],
      [() => peft.addWeightedAdapter(["a"], [1], "b"), "EXISTS", '"b"'],
    ];
    for (const [run, code, message] of cases) {
      const error = await caught(run);
      expect(error).toMatchObject({ code });
      expect(error.message).toContain(message);
    }
    expect(Object.keys(peft.peftConfig)).toEqual(["a", "b"]);
    expect(logitsOf(peft)).toEqual(before);
  });
});

describe.each(["llama", "gpt2"] as const)("9.11 combinations of LoRA on %s", (base) => {
  const targets = base === "gpt2" ? ["c_attn", "c_fc"] : ["q_proj", "up_proj"];
  /** Random A and B everywhere, "b" with another rank and one module less. */
  function withTwoLora(): PeftModel {
    const lora = (r: number, target_modules: string[], ids: number[]) =>
      new LoraConfig({
        r,
        lora_alpha: 3,
        target_modules,
        trainable_token_indices: ids,
        init_lora_weights: false,
        fan_in_fan_out: base === "gpt2",
      });
    const peft = getPeftModel(makeBase(base), lora(2, targets, A), { adapterName: "a", seed: 1, onWarning: () => {} });
    peft.addAdapter("b", lora(3, targets.slice(0, 1), [9, 2]), { seed: 2 });
    peft.addAdapter("same", lora(2, targets, [9, 2]), { seed: 3 });
    setRows(peft, "a");
    setRows(peft, "b", (slot, column) => slot - column / 4);
    return peft;
  }
  const loraOf = (peft: PeftModel): [string, LoraLayer][] =>
    [...peft.adapters.layers()].filter(([, layer]) => layer.moduleType === "lora.Linear") as [string, LoraLayer][];

  test("cat is exact: both at weight 1 act as both active", async () => {
    const peft = withTwoLora();
    peft.setAdapter(["a", "b"]);
    const both = logitsOf(peft);
    await peft.addWeightedAdapter(["a", "b"], [1, 1], "c");
    peft.setAdapter("c");
    const combined = logitsOf(peft);
    combined.forEach((value, i) =>
      expect(Math.abs(value - both[i]!)).toBeLessThanOrEqual(1e-5 * Math.max(1, Math.abs(both[i]!))),
    );
    const files = new Map<string, Uint8Array>();
    await peft.savePretrained(files, { selectedAdapters: ["c"] });
    const loaded = getPeftModel(makeBase(base), new LoraConfig({ target_modules: targets, r: 1 }), {
      onWarning: () => {},
    });
    await loaded.loadAdapter(files, "c", { subfolder: "c" });
    loaded.setAdapter("c");
    expect(logitsOf(loaded)).toEqual(combined);
  });

  test("linear is PEFT's rule of roots", async () => {
    const peft = withTwoLora();
    await peft.addWeightedAdapter(["a", "same"], [0.5, -2], "c", { combinationType: "linear" });
    for (const [, layer] of loraOf(peft)) {
      const [a, b, c] = ["a", "same", "c"].map((name) => layer.partOf(name)) as [
        ReturnType<LoraLayer["partOf"]>,
        ReturnType<LoraLayer["partOf"]>,
        ReturnType<LoraLayer["partOf"]>,
      ];
      expect(c.scale).toBe(1);
      const [ra, rb] = [Math.sqrt(0.5 * a.scale), Math.sqrt(2 * b.scale)];
      const near = (got: ArrayLike<number>, expected: (i: number) => number): void =>
        Array.from(got).forEach((x, i) => expect(x).toBeCloseTo(expected(i), 5));
      const [aA, bA, aB, bB] = [a.A, b.A, a.B, b.B].map((t): ArrayLike<number> => t.dataSync()) as [
        ArrayLike<number>,
        ArrayLike<number>,
        ArrayLike<number>,
        ArrayLike<number>,
      ];
      near(c.A.dataSync(), (i) => ra * aA[i]! - rb * bA[i]!);
      near(c.B.dataSync(), (i) => ra * aB[i]! + rb * bB[i]!);
    }
  });

  test("linear needs equal ranks; biases cannot be combined", async () => {
    const peft = withTwoLora();
    const error = await caught(() => peft.addWeightedAdapter(["a", "b"], [1, 1], "c", { combinationType: "linear" }));
    expect(error).toMatchObject({ name: "ConfigError", code: "RANK" });
    expect(Object.keys(peft.peftConfig)).toEqual(["a", "b", "same"]);
  });
});
