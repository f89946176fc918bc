import { AutoModelForCausalLM, AutoModelForMaskedLM, type CausalLM } from "@neolog/models";
import type { Embedding, Linear } from "@neolog/nn";
import { Scope, setDefaultBackend } from "@neolog/tensor";
import { computingBackends } from "@neolog/tensor/testing";
import { beforeAll, describe, expect, test } from "vitest";
import { LoraConfig, type PeftModel, TrainableTokensConfig, addTokens, getPeftModel, trimVocabulary } from "./index.ts";
import {
  BATCH,
  type BaseName,
  caught,
  configOf,
  isTied,
  listener,
  logitsOf,
  makeBase,
  setRows,
  valuesOf,
} from "./testing.ts";

const NAMES: BaseName[] = ["llama", "llama tied", "gpt2", "gpt2 untied", "llama with biases"];
const IDS = [7, 1, 4];
const KEEP = [10, 7, 4, 0, 1, 9];
const config = (token_indices = IDS) => new TrainableTokensConfig({ token_indices });
function adapted(base: BaseName): PeftModel {
  const peft = getPeftModel(makeBase(base), config(), { onWarning: () => {} });
  peft.addAdapter("second", config([9, 0]));
  setRows(peft, "default");
  setRows(peft, "second", (slot, column) => slot - column / 4);
  return peft;
}
/** Logits of every position at the first `count` tokens, or at those named. */
function columns(model: PeftModel | CausalLM, input_ids: number[][], ids: number[]): number[][] {
  using _scope = new Scope();
  const { logits } = model.forward({ input_ids });
  const values = logits.dataSync();
  const V = logits.shape[2]!;
  return Array.from({ length: values.length / V }, (_, row) => ids.map((id) => values[row * V + id]!));
}

describe.each(await computingBackends())("9.9 the vocabulary on $title", ({ backend }) => {
  beforeAll(() => setDefaultBackend(backend));

  test.each(NAMES)("A-90 %s: added tokens change nothing for those that were there", (base) => {
    const peft = adapted(base);
    const old = Array.from({ length: 11 }, (_, id) => id);
    const before = columns(peft, BATCH.input_ids, old);
    expect(addTokens(peft, 3)).toEqual([11, 12, 13]);
    expect(columns(peft, BATCH.input_ids, old)).toEqual(before);
    const plain = makeBase(base);
    plain.resizeTokenEmbeddings(14);
    peft.extendAdapter("default", [12]);
    peft.disableAdapterLayers();
    expect(logitsOf(peft)).toEqual(logitsOf(plain));
    expect(valuesOf(peft.unload())).toEqual(valuesOf(plain));
    expect(peft.getBaseModel().config.vocab_size).toBe(14);
  });

  test.each([true, false])("A-90 added tokens start by a policy, each table by its own (adapters: %s)", (wrapped) => {
    const base = makeBase("llama");
    const model = wrapped ? getPeftModel(base, config()) : base;
    const tables = [base.embeddingPath, base.headPath].map((path) => {
      const module = base.moduleAt(path) as { base_layer?: Embedding | Linear } & Linear;
      return () => module.base_layer?.weight ?? module.weight;
    });
    const before = tables.map((table) => [...table().dataSync()]);
    addTokens(model, 2, { init: { kind: "description", tokens: [[1, 2], [3]] } });
    tables.forEach((table, i) => {
      const row = (id: number) => before[i]!.slice(id * 6, id * 6 + 6);
      const described = row(1).map((x, j) => Math.fround((x + row(2)[j]!) / 2));
      expect([...table().dataSync()]).toEqual([...before[i]!, ...described, ...row(3)]);
    });
  });

  test.each(NAMES)("A-90 %s: trimming keeps the logits of kept tokens on kept prompts", (base) => {
    const peft = adapted(base);
    const prompts = [
      [7, 1, 10, 4],
      [0, 9, 9, 7],
    ];
    const renumbered = prompts.map((row) => row.map((id) => KEEP.indexOf(id)));
    const all = KEEP.map((_, i) => i);
    const before = ["default", "second", [], ["default", "second"]].map((names) => {
      peft.setAdapter(names);
      return columns(peft, prompts, KEEP);
    });
    trimVocabulary(peft, KEEP);
    const after = ["default", "second", [], ["default", "second"]].map((names) => {
      peft.setAdapter(names);
      return columns(peft, renumbered, all);
    });
    expect(after).toEqual(before);
    expect(peft.peftConfig["default"]).toMatchObject({ token_indices: IDS.map((id) => KEEP.indexOf(id)) });
    expect(peft.getBaseModel().config.vocab_size).toBe(6);
    const base_ = peft.unload();
    expect(base_.moduleAt(base_.embeddingPath)).toMatchObject({ num_embeddings: 6 });
    expect(base_.config["tie_word_embeddings"] ?? true).toBe(isTied(base));
  });

  test("A-90 a trimmed model generates like the whole one", async () => {
    const peft = adapted("llama tied");
    const whole = await peft.generate({ input_ids: [[7, 1]], max_new_tokens: 3 });
    const keep = [...new Set([...KEEP, ...whole.flat()])];
    trimVocabulary(peft, keep);
    const [trimmed] = await peft.generate({ input_ids: [[keep.indexOf(7), keep.indexOf(1)]], max_new_tokens: 3 });
    expect(trimmed!.map((id) => keep[id])).toEqual(whole[0]);
  });

  test("A-90 BERT's head bias is trimmed too, and the padding id renumbered", () => {
    const bert = AutoModelForMaskedLM.fromConfig({ ...configOf("bert, tied"), pad_token_id: 4 } as never, {
      seed: 2,
      std: 0.5,
    });
    const input_ids = [[7, 1, 10, 4]];
    const read = (ids: number[][], of: number[]) => columns(bert as never, ids, of);
    const before = read(input_ids, KEEP);
    trimVocabulary(bert, KEEP);
    expect(
      read(
        input_ids.map((row) => row.map((id) => KEEP.indexOf(id))),
        KEEP.map((_, i) => i),
      ),
    ).toEqual(before);
    expect(bert.config["pad_token_id"]).toBe(2);
    expect((bert.moduleAt(bert.embeddingPath) as Embedding).padding_idx).toBe(2);
  });

  test("renumbers the ids of config.json and generation_config.json, or says which must be kept", async () => {
    const make = () => {
      const model = AutoModelForCausalLM.fromConfig({
        ...configOf("llama"),
        eos_token_id: [4, 9],
        bos_token_id: 50256,
      } as never);
      return model;
    };
    const model = make();
    trimVocabulary(model, KEEP);
    expect(model.config).toMatchObject({ eos_token_id: [2, 5], bos_token_id: 50256, vocab_size: 6 });
    const error = await caught(() => trimVocabulary(make(), [4, 1]));
    expect(error).toMatchObject({ name: "VocabularyError", ids: [9] });
    expect(error.message).toBe("trim: eos_token_id of config.json (id 9) must be kept");
  });

  test("says what does not fit and changes nothing", async () => {
    const peft = adapted("llama");
    const before = logitsOf(peft);
    const cases: [() => unknown, string, string][] = [
      [
        () => trimVocabulary(peft, [10, 7, 4, 0, 9]),
        "VocabularyError",
        "trained by default on model.embed_tokens must be kept, left out 1",
      ],
      [() => trimVocabulary(peft, [...KEEP, 7]), "VocabularyError", "must be different ones in [0, 11), got 7"],
      [() => addTokens(peft, 0), "ConfigError", "addTokens: count must be a whole number above 0, got 0"],
      [() => addTokens(peft, 1, { init: "original" }), "ConfigError", "new tokens have no original rows"],
      [() => addTokens(peft, 1, { init: { kind: "copy", from: [11] } }), "ConfigError", "below the 11 rows"],
    ];
    for (const [run, name, message] of cases) {
      const error = await caught(run);
      expect(error).toMatchObject({ name });
      expect(error.message).toContain(message);
    }
    await peft.mergeAdapter();
    for (const run of [() => addTokens(peft, 1), () => trimVocabulary(peft, KEEP)])
      expect(await caught(run)).toMatchObject({ name: "AdapterError", code: "MERGED" });
    peft.unmergeAdapter();
    expect(logitsOf(peft)).toEqual(before);
  });

  test("LoRA on a table must go first", async () => {
    const lora = new LoraConfig({ r: 2, target_modules: ["q_proj", "embed_tokens"] });
    const peft = getPeftModel(makeBase("llama"), lora, { onWarning: () => {} });
    for (const run of [() => addTokens(peft, 1), () => trimVocabulary(peft, KEEP)])
      expect(await caught(run)).toMatchObject({ name: "ConfigError", code: "UNSUPPORTED" });
  });

  test("A-90 rows beside LoRA are trimmed and extended too", () => {
    const lora = new LoraConfig({
      r: 2,
      target_modules: ["q_proj"],
      trainable_token_indices: { embed_tokens: IDS, lm_head: [1, 9] },
    });
    const peft = getPeftModel(makeBase("llama"), lora, { onWarning: () => {} });
    setRows(peft, "default");
    const before = columns(peft, [[7, 1, 10, 4]], KEEP);
    trimVocabulary(peft, KEEP);
    expect(
      columns(
        peft,
        [[1, 4, 0, 2]],
        KEEP.map((_, i) => i),
      ),
    ).toEqual(before);
    expect(peft.peftConfig["default"]).toMatchObject({
      trainable_token_indices: { embed_tokens: [1, 4, 2], lm_head: [4, 5] },
    });
    peft.extendAdapter("default", [0]);
    expect(peft.peftConfig["default"]).toMatchObject({
      trainable_token_indices: { embed_tokens: [1, 4, 2, 0], lm_head: [4, 5, 0] },
    });
  });

  test("loading with resize grows a table that adapters already wrap", async () => {
    const big = adapted("llama tied");
    addTokens(big, 2);
    big.addAdapter("new", config([11, 12]));
    setRows(big, "new", () => 0.25);
    const files = new Map<string, Uint8Array>();
    await big.savePretrained(files, { selectedAdapters: ["new"], saveEmbeddingLayers: false });
    const { codes, onWarning } = listener();
    const peft = getPeftModel(makeBase("llama tied"), config(), { onWarning });
    await peft.loadAdapter(files, "new", { subfolder: "new", resize: true });
    expect(codes).toEqual(["TABLE_GROWN"]);
    peft.setAdapter("new");
    big.setAdapter("new");
    expect(logitsOf(peft, [[11, 12, 3]])).toEqual(logitsOf(big, [[11, 12, 3]]));
  });
});
