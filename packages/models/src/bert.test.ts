import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { backward } from "@neolog/autograd";
import { writeSafetensors } from "@neolog/checkpoint";
import { Embedding, Linear, stateDict } from "@neolog/nn";
import { type Tensor, assign, tensor } from "@neolog/tensor";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { AutoModelForCausalLM, AutoModelForMaskedLM } from "./autoModel.ts";
import type { MaskedLM, MaskedLMInputs } from "./maskedLm.ts";
import { TINY_BERT, TINY_LLAMA, readTensors } from "./testing.ts";

const { fromConfig, fromPretrained } = AutoModelForMaskedLM;
const build = (changes: object = {}): MaskedLM => fromConfig({ ...TINY_BERT, ...changes }, { seed: 5, std: 0.3 });
const read = (t: Tensor): number[] => [...t.dataSync()];
const logitsOf = (model: MaskedLM, inputs: MaskedLMInputs): number[] => read(model.forward(inputs).logits);

test("every position sees those before and after it, and no padding", () => {
  const model = build();
  const first = (input_ids: number[], attention_mask: number[]): number[] =>
    logitsOf(model, { input_ids: [input_ids], attention_mask: [attention_mask] }).slice(0, 23);
  expect(first([1, 2, 3], [1, 1, 1])).not.toEqual(first([1, 2, 4], [1, 1, 1]));
  expect(first([1, 2, 3], [1, 1, 0])).toEqual(first([1, 2, 4], [1, 1, 0]));
  expect(first([1, 2], [1, 1])).toEqual(first([1, 2, 0], [1, 1, 0]));
});

test("segments are 0 where none are given", () => {
  const input_ids = [[1, 2, 3]];
  const typed = (types: number[]): number[] => logitsOf(build(), { input_ids, token_type_ids: [types] });
  expect(typed([0, 0, 0])).toEqual(logitsOf(build(), { input_ids }));
  expect(typed([0, 1, 1])).not.toEqual(typed([0, 0, 0]));
});

test("lookups of the padding token give no gradient; its column of the tied decoder does", () => {
  const rowZero = (tie_word_embeddings: boolean): number[] => {
    const model = build({ tie_word_embeddings });
    for (const p of model.parameters()) p.requiresGrad = true;
    backward(model.forward({ input_ids: [[0, 1, 2]], labels: [[3, -100, -100]] }).loss!);
    return read((model.moduleAt(model.embeddingPath) as Embedding).weight.grad!).slice(0, 12);
  };
  expect(rowZero(false)).toEqual(Array.from({ length: 12 }, () => 0));
  expect(rowZero(true).some((x) => x !== 0)).toBe(true);
});

describe("the decoder", () => {
  test("tied, it has a bias and no table of its own", () => {
    const model = build();
    const before = logitsOf(model, { input_ids: [[1]] });
    const bias = Array.from({ length: 23 }, (_, i) => Math.sin(i));
    assign(stateDict(model).get("cls.predictions.bias")!, tensor(bias, [23]));
    const after = logitsOf(model, { input_ids: [[1]] });
    expect(after).toEqual(before.map((x, i) => Math.fround(x + Math.fround(bias[i]!))));
    expect(model.tiedPaths).toEqual(["cls.predictions.decoder"]);
    expect([...stateDict(model).keys()].filter((key) => key.includes("decoder"))).toEqual([]);
    model.resizeTokenEmbeddings(25);
    expect(stateDict(model).get("cls.predictions.bias")!.shape).toEqual([25]);
    expect(model.forward({ input_ids: [[24]] }).logits.shape).toEqual([1, 1, 25]);
  });

  test("untied, it has both", () => {
    const model = build({ tie_word_embeddings: false });
    expect(model.tiedPaths).toEqual([]);
    expect(model.moduleAt(model.headPath)).toBeInstanceOf(Linear);
    model.resizeTokenEmbeddings(25);
    const shapes = [...stateDict(model)].filter(([key]) => /predictions\.(decoder|bias)/.test(key));
    expect(shapes.map(([key, { shape }]) => [key, shape])).toEqual([
      ["cls.predictions.bias", [25]],
      ["cls.predictions.decoder.weight", [25, 12]],
      ["cls.predictions.decoder.bias", [25]],
    ]);
  });
});

describe("folders", () => {
  let dir: string;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "neolog-"));
  });
  afterEach(() => rm(dir, { recursive: true, force: true }));

  /** The folder of a model, its tensors under other names and with others besides. */
  async function write(model: MaskedLM, rename: (name: string) => string, added: Record<string, number[]> = {}) {
    await model.savePretrained(dir);
    const stored = [...(await readTensors(dir, "model.safetensors"))].map(
      ([name, { shape, data }]) => [rename(name), shape, data] as const,
    );
    const besides = Object.entries(added).map(([name, data]) => [name, [data.length], data] as const);
    const tensors = [...stored, ...besides].map(
      ([name, shape, data]) =>
        [name, { dtype: "F32", shape, bytes: new Uint8Array(Float32Array.from(data).buffer) }] as const,
    );
    await writeFile(join(dir, "model.safetensors"), writeSafetensors(tensors));
  }
  const same = (model: MaskedLM, other: MaskedLM): void => {
    const expected = stateDict(model);
    for (const [key, t] of stateDict(other)) expect(t.dataSync(), key).toEqual(expected.get(key)!.dataSync());
  };

  test("of 2018 have gamma and beta, a pooler, a second head, and the tied bias twice", async () => {
    const model = build();
    const old = (name: string): string =>
      name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
    const bias = read(stateDict(model).get("cls.predictions.bias")!);
    await write(model, old, {
      "bert.embeddings.position_ids": [0],
      "bert.pooler.dense.bias": [1],
      "cls.seq_relationship.bias": [1],
      "cls.predictions.decoder.bias": bias,
    });
    same(model, await fromPretrained(dir));
  });

  test("where the tied bias disagrees are refused", async () => {
    await write(build(), (name) => name, { "cls.predictions.decoder.bias": Array.from({ length: 23 }, () => 1) });
    await expect(fromPretrained(dir)).rejects.toMatchObject({
      code: "TIED_DISAGREE",
      message: expect.stringContaining(
        '"cls.predictions.decoder.bias" must equal "cls.predictions.bias", to which the config ties it, found other values; set tie_word_embeddings to false',
      ) as string,
    });
  });

  test("untied, come back as they were", async () => {
    const model = build({ tie_word_embeddings: false });
    await model.savePretrained(dir);
    same(model, await fromPretrained(dir));
  });

  test("are opened by the class of their kind alone", async () => {
    await build().savePretrained(dir);
    await expect(AutoModelForCausalLM.fromPretrained(dir)).rejects.toThrow(
      'config.json: "model_type": must name a causal language model for AutoModelForCausalLM, ' +
        'found "bert", a masked language model; open it with AutoModelForMaskedLM',
    );
    await AutoModelForCausalLM.fromConfig(TINY_LLAMA).savePretrained(dir);
    await expect(fromPretrained(dir)).rejects.toMatchObject({
      name: "ModelConfigError",
      key: "model_type",
      message: expect.stringContaining('"llama", a causal language model; open it with AutoModelForCausalLM') as string,
    });
  });
});

describe("refused", () => {
  test.each<[object, string]>([
    [{ position_embedding_type: "relative_key" }, '"position_embedding_type": must be "absolute"'],
    [{ is_decoder: true }, '"is_decoder": must be false, found true'],
    [{ add_cross_attention: true }, '"add_cross_attention": must be false, found true'],
    [{ hidden_act: "snake" }, '"hidden_act": must be ("gelu" |'],
    [{ type_vocab_size: undefined }, '"type_vocab_size": must be set, found none'],
    [{ num_attention_heads: 5 }, '"num_attention_heads": must divide hidden_size (12), found 5'],
    [{ pad_token_id: 23 }, '"pad_token_id": must be below vocab_size (23), found 23'],
  ])("config %j", (changes, message) => {
    expect(() => build(changes)).toThrow(`config.json: ${message}`);
  });

  test.each<[string, object, string]>([
    [
      "a segment of no row",
      { token_type_ids: [[0, 2]] },
      "bert: token_type_ids must be below type_vocab_size (2), got 2",
    ],
    [
      "a position of no row",
      { position_ids: [[0, 16]] },
      "bert: position_ids must be below max_position_embeddings (16), got 16",
    ],
    [
      "segments of another size",
      { token_type_ids: [[0]] },
      "token_type_ids: the size must be [1, 2] to go with input_ids, got [1, 1]",
    ],
    ["labels of another size", { labels: [[0]] }, "labels: the size must be [1, 2] to go with input_ids, got [1, 1]"],
    ["a label of no column", { labels: [[0, 23]] }, "crossEntropy: targets must be in [0, 23) or -100, got 23"],
  ])("%s", (_, inputs, message) => {
    expect(() => build().forward({ input_ids: [[1, 2]], ...inputs })).toThrow(message);
  });

  test("more tokens than positions", () => {
    expect(() => build().forward({ input_ids: [Array.from({ length: 17 }, () => 1)] })).toThrow(
      "bert: position_ids must be below max_position_embeddings (16), got 16",
    );
  });
});
