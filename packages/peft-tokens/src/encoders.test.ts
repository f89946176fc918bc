import { AutoModelForMaskedLM, AutoModelForSeq2SeqLM, type MaskedLM, type Seq2SeqLM } from "@neolog/models";
import { type Module, stateDict } from "@neolog/nn";
import { Scope, type Tensor, tensor } from "@neolog/tensor";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { PeftModel, TrainableTokensConfig, getPeftModel, tokenParameters } from "./index.ts";
import type { AdaptableModel } from "./adaptable.ts";
import { caught, listener, put } from "./testing.ts";

const WIDTH = 6;
const VOCAB = 11;
const IDS = [3, 7];
const ROWS = Array.from({ length: IDS.length * WIDTH }, (_, i) => Math.fround(Math.sin(i + 1)));
const rowOf = (slot: number): number[] => ROWS.slice(slot * WIDTH, (slot + 1) * WIDTH);

const t5 = (changes: object = {}): Seq2SeqLM =>
  AutoModelForSeq2SeqLM.fromConfig(
    {
      model_type: "t5",
      vocab_size: VOCAB,
      d_model: WIDTH,
      d_kv: 2,
      d_ff: 8,
      num_layers: 1,
      num_heads: 3,
      decoder_start_token_id: 0,
      ...changes,
    },
    { seed: 3, std: 0.5 },
  );
const bert = (changes: object = {}): MaskedLM => {
  const model = AutoModelForMaskedLM.fromConfig(
    {
      model_type: "bert",
      vocab_size: VOCAB,
      hidden_size: WIDTH,
      intermediate_size: 8,
      num_hidden_layers: 1,
      num_attention_heads: 3,
      max_position_embeddings: 16,
      type_vocab_size: 2,
      ...changes,
    },
    { seed: 3, std: 0.5 },
  );
  for (const [key, t] of stateDict(model)) if (/predictions\.(decoder\.)?bias$/.test(key)) put(t, BIAS);
  return model;
};
const BIAS = Array.from({ length: VOCAB }, (_, i) => Math.fround(Math.cos(3 * i)));

const T5_BATCH = { input_ids: [[1, 3, 5, 7], [7, 2, 9, 3]], labels: [[3, 4, 7], [8, 7, 3]] }; // prettier-ignore
const BERT_BATCH = { input_ids: [[1, 3, 5, 7], [7, 2, 9, 4]], labels: [[-100, 3, 5, -100], [7, 2, -100, 4]] }; // prettier-ignore
const logitsOf = (model: { forward(inputs: never): { logits: Tensor } }, inputs: object): number[] => {
  using _scope = new Scope();
  return [...model.forward(inputs as never).logits.dataSync()];
};
const adapted = <M extends AdaptableModel>(model: M, target_modules: string | string[] | null): PeftModel<M> => {
  const peft = getPeftModel(model, new TrainableTokensConfig({ token_indices: IDS, target_modules }), {
    onWarning: ({ message }) => expect.fail(message),
  });
  for (const rows of tokenParameters(peft)) put(rows, ROWS);
  return peft;
};

describe("an encoder-decoder", () => {
  const lookups = ["shared", "encoder.embed_tokens", "decoder.embed_tokens"];
  const lookup = (model: Module, path: string, ids: number[]): number[] => {
    const module = model.moduleAt(path) as Module & { forward(ids: Int32Array): Tensor };
    return [...module.forward(Int32Array.from(ids)).dataSync()];
  };

  test("A-20: all four users of the shared table see the rows, of one parameter", () => {
    const plain = t5();
    for (const target of [null, "shared", ["shared"], ["shared", "lm_head", "embed_tokens"]]) {
      const model = t5();
      const peft = adapted(model, target);
      expect(tokenParameters(peft)).toHaveLength(1);
      for (const path of lookups) {
        expect(lookup(model, path, IDS), path).toEqual(ROWS);
        expect(lookup(model, path, [1, 2]), path).toEqual(lookup(plain, path, [1, 2]));
      }
      const units = tensor(
        Array.from({ length: WIDTH ** 2 }, (_, i) => (i % (WIDTH + 1) === 0 ? 1 : 0)),
        [WIDTH, WIDTH],
      );
      const head = model.moduleAt("lm_head") as Module & { forward(x: Tensor): Tensor };
      const columns = [...head.forward(units).dataSync()];
      IDS.forEach((id, slot) =>
        expect(Array.from({ length: WIDTH }, (_, d) => columns[d * VOCAB + id])).toEqual(rowOf(slot)),
      );
    }
  });

  test("merging changes no output, greedy ids included; unloading gives the base", async () => {
    const before = logitsOf(t5(), T5_BATCH);
    const peft = adapted(t5(), null);
    const logits = logitsOf(peft, T5_BATCH);
    expect(logits).not.toEqual(before);
    const prompt = { input_ids: T5_BATCH.input_ids, max_new_tokens: 6, eos_token_id: null };
    const ids = await peft.generate(prompt);
    await peft.mergeAdapter();
    expect(logitsOf(peft, T5_BATCH)).toEqual(logits);
    expect(await peft.generate(prompt)).toEqual(ids);
    const base = peft.unload();
    expect(logitsOf(base, T5_BATCH)).toEqual(before);
  });

  test("one stack alone can have rows, which cannot be merged", async () => {
    const model = t5();
    const peft = adapted(model, "encoder.embed_tokens");
    expect(lookup(model, "encoder.embed_tokens", IDS)).toEqual(ROWS);
    for (const path of ["shared", "decoder.embed_tokens"])
      expect(lookup(model, path, IDS)).toEqual(lookup(t5(), path, IDS));
    const { loss } = peft.forward(T5_BATCH);
    peft.backward(loss!);
    expect([...tokenParameters(peft)[0]!.grad!.dataSync()].some((x) => x !== 0)).toBe(true);
    expect(await caught(() => peft.mergeAdapter({ untie: true }))).toMatchObject({
      code: "SHARED_TABLE",
      message:
        "mergeAdapter: default replaces rows of encoder.embed_tokens alone, but its table is also shared's; untying the head does not help",
    });
  });

  test("the batch's samples have their own adapters, in both stacks", () => {
    const peft = adapted(t5(), null);
    const [with_, without] = [logitsOf(peft, T5_BATCH), logitsOf(t5(), T5_BATCH)];
    using _scope = new Scope();
    const mixed = [...peft.forward(T5_BATCH, { adapterNames: ["__base__", "default"] }).logits.dataSync()];
    const half = mixed.length / 2;
    expect(mixed).toEqual([...without.slice(0, half), ...with_.slice(half)]);
  });
});

describe("T-8: a head with a bias keeps it", () => {
  test.each(["bert.embeddings.word_embeddings", "cls.predictions.decoder"])(
    "fresh rows of %s change nothing",
    (path) => {
      for (const tie_word_embeddings of [true, false]) {
        const before = logitsOf(bert({ tie_word_embeddings }), BERT_BATCH);
        const config = new TrainableTokensConfig({ token_indices: IDS, target_modules: path });
        const peft = getPeftModel(bert({ tie_word_embeddings }), config);
        expect(logitsOf(peft, BERT_BATCH)).toEqual(before);
      }
    },
  );

  test.each([true, false])("trained rows of the decoder alone give x·row + bias, tied: %s", (tie_word_embeddings) => {
    const model = bert({ tie_word_embeddings });
    adapted(model, "cls.predictions.decoder");
    const head = model.moduleAt("cls.predictions.decoder") as Module & { forward(x: Tensor): Tensor };
    const logits = head.forward(tensor([1, 0, 0, 0, 0, 0], [1, WIDTH])).dataSync();
    IDS.forEach((id, slot) => expect(logits[id]).toBe(Math.fround(rowOf(slot)[0]! + BIAS[id]!)));
  });
});

describe("untied and saved, a head that had rows alone", () => {
  let dir: string;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "neolog-"));
  });
  afterEach(() => rm(dir, { recursive: true, force: true }));

  test.each([
    ["t5", t5, "lm_head", AutoModelForSeq2SeqLM, T5_BATCH],
    ["bert", bert, "cls.predictions.decoder", AutoModelForMaskedLM, BERT_BATCH],
  ] as const)("%s gives the same logits again", async (_, make, head, auto, batch) => {
    const { codes, onWarning } = listener();
    const config = new TrainableTokensConfig({ token_indices: IDS, target_modules: head });
    const peft = getPeftModel(make() as MaskedLM, config, { onWarning });
    for (const rows of tokenParameters(peft)) put(rows, ROWS);
    const logits = logitsOf(peft, batch);
    const merged = await peft.mergeAndUnload({ untie: true });
    expect(codes).toEqual(["UNTIED"]);
    expect(logitsOf(merged, batch)).toEqual(logits);
    await merged.savePretrained(dir);
    expect(logitsOf(await auto.fromPretrained(dir), batch)).toEqual(logits);
  });
});
