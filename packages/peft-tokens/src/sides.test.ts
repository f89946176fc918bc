import { AutoModelForCausalLM, type CausalLM } from "@neolog/models";
import type { Embedding, Linear } from "@neolog/nn";
import { Scope, assign, setDefaultBackend } from "@neolog/tensor";
import { computingBackends } from "@neolog/tensor/testing";
import { beforeAll, describe, expect, test } from "vitest";
import { type PeftModel, TrainableTokensConfig, getPeftModel, tokenParameters } from "./index.ts";
import { BATCH, type BaseName, caught, configOf, listener, logitsOf, makeBase, put, setRows } from "./testing.ts";

const IDS = [7, 1, 4];
const config = (target_modules: string | null = null) =>
  new TrainableTokensConfig({ token_indices: IDS, target_modules });
const rowValue = (slot: number, column: number): number => Math.sin(7 * slot + column);
const oneSided = (base: CausalLM, sides: "input" | "output"): PeftModel => {
  const peft = getPeftModel(base, config(), { sides });
  setRows(peft, "default", rowValue);
  return peft;
};

/** The tied model with a head of its own, and new rows on one end. */
function untiedCopy(name: BaseName, side: "input" | "output"): CausalLM {
  using _scope = new Scope();
  const tied = makeBase(name);
  const copy = AutoModelForCausalLM.fromConfig({ ...configOf(name), tie_word_embeddings: false });
  const values = new Map(tied.namedParameters());
  const table = (tied.moduleAt(tied.embeddingPath) as Embedding).weight;
  for (const [key, t] of copy.namedParameters()) assign(t, values.get(key) ?? table);
  const end = copy.moduleAt(side === "input" ? copy.embeddingPath : copy.headPath) as Embedding | Linear;
  const changed = Array.from(end.weight.dataSync());
  const width = end.weight.shape[1]!;
  IDS.forEach((id, slot) => {
    for (let column = 0; column < width; column++) changed[id * width + column] = rowValue(slot, column);
  });
  put(end.weight, changed);
  return copy;
}

const TIED: BaseName[] = ["llama tied", "gpt2", "gemma, tied", "qwen2, tied", "qwen3, tied", "phi3, tied"];

describe.each(await computingBackends())("A-85 one side of a tie on $title", ({ backend }) => {
  beforeAll(() => setDefaultBackend(backend));

  test.each(TIED.flatMap((name) => (["input", "output"] as const).map((side) => [name, side] as const)))(
    "%s, %s: as an untied copy with that end changed",
    async (name, side) => {
      const peft = oneSided(makeBase(name), side);
      expect(logitsOf(peft)).toEqual(logitsOf(untiedCopy(name, side)));
      peft.disableAdapterLayers();
      expect(logitsOf(peft)).toEqual(logitsOf(makeBase(name)));
    },
  );

  test.each(["input", "output"] as const)("the rows learn from the %s side alone", (side) => {
    using _scope = new Scope();
    const peft = oneSided(makeBase("llama tied"), side);
    peft.backward(peft.forward(BATCH).loss!);
    const [rows] = tokenParameters(peft);
    const other = getPeftModel(untiedCopy("llama tied", side), config(side === "input" ? null : "lm_head"));
    other.backward(other.forward(BATCH).loss!);
    const [separate] = tokenParameters(other);
    expect(rows!.grad!.dataSync()).toEqual(separate!.grad!.dataSync());
  });

  test("two adapters may have the same ids on different sides", () => {
    const peft = oneSided(makeBase("llama tied"), "input");
    peft.addAdapter("out", config(), { sides: "output" });
    setRows(peft, "out", rowValue);
    peft.setAdapter(["default", "out"]);
    const both = getPeftModel(makeBase("llama tied"), config());
    setRows(both, "default", rowValue);
    expect(logitsOf(peft)).toEqual(logitsOf(both));
  });

  test.each(["input", "output"] as const)("T-5 merging the %s side needs a table for each end", async (side) => {
    const { codes, onWarning } = listener();
    const peft = getPeftModel(makeBase("llama tied"), config(), { sides: side, onWarning });
    setRows(peft, "default", rowValue);
    const before = logitsOf(peft);
    expect(await caught(() => peft.mergeAdapter())).toMatchObject({ name: "AdapterError", code: "SHARED_TABLE" });
    expect(logitsOf(peft)).toEqual(before);
    const merged = await peft.mergeAndUnload({ untie: true });
    expect(logitsOf(merged)).toEqual(before);
    expect(merged.config["tie_word_embeddings"]).toBe(false);
    expect(codes).toEqual(["UNTIED"]);
  });
});

test("sides must be uses of the targets", async () => {
  const wrong = (base: BaseName, target: string | null, sides: string) =>
    caught(() => getPeftModel(makeBase(base), config(target), { sides: sides as "input" }));
  expect(await wrong("llama", null, "output")).toMatchObject({
    name: "ConfigError",
    code: "ARGUMENT",
    message: 'sides: rows of model.embed_tokens can hold on "input" or "both", got "output"',
  });
  expect((await wrong("llama", "lm_head", "input")).message).toBe(
    'sides: rows of lm_head can hold on "output" or "both", got "input"',
  );
  expect((await wrong("llama tied", null, "left")).message).toBe(
    'sides: rows of model.embed_tokens can hold on "input", "output" or "both", got "left"',
  );
  for (const [target, sides] of [
    [null, "input"],
    ["lm_head", "output"],
    ["lm_head", "both"],
  ] as const) {
    const peft = getPeftModel(makeBase("llama"), config(target), { sides });
    setRows(peft, "default", rowValue);
    const plain = getPeftModel(makeBase("llama"), config(target));
    setRows(plain, "default", rowValue);
    expect(logitsOf(peft)).toEqual(logitsOf(plain));
  }
});
