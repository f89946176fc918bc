import { Embedding, Module } from "@neolog/nn";
import { Scope } from "@neolog/tensor";
import { describe, expect, test } from "vitest";
import { type AdaptableModel, TrainableTokensConfig, getPeftModel } from "./index.ts";
import { TwoTables, table } from "./acceptance/custom.ts";
import { resolveTargets } from "./targets.ts";
import { caught, makeBase, setRows } from "./testing.ts";

class Tree extends Module {
  constructor(children: Record<string, Module>) {
    super();
    Object.assign(this, children);
  }
  forward(): never {
    throw new Error("a tree of names has no forward pass");
  }
}
/** A tree that says what an encoder of its naming scheme would. */
const named = (root: Module, embeddingPath: string): AdaptableModel =>
  Object.assign(root, {}, { embeddingPath }) as never;

describe("targets", () => {
  test("A-24, A-26: the embedding is the one the model names, else embed_tokens, else an error", async () => {
    const scheme = (path: string): AdaptableModel => {
      const tree = path.split(".").reduceRight<Module>((child, key) => new Tree({ [key]: child }), table(4, 2));
      return named(tree, path);
    };
    for (const path of ["model.embed_tokens", "transformer.wte", "bert.embeddings.word_embeddings"])
      expect(resolveTargets(scheme(path), null)).toEqual([path]);
    const nameless = (key: string): AdaptableModel => new Tree({ inner: new Tree({ [key]: table(4, 2) }) });
    expect(resolveTargets(nameless("embed_tokens"), null)).toEqual(["inner.embed_tokens"]);
    expect(await caught(() => resolveTargets(nameless("words"), null))).toMatchObject({
      name: "TargetError",
      code: "NOT_FOUND",
    });
  });

  const tree = (): AdaptableModel =>
    new Tree({
      a: new Tree({ emb: table(4, 2), pos_emb: table(4, 2) }),
      b: new Tree({ emb: table(4, 2) }),
      norm: new Tree({}),
    });

  test("A-27: names match whole or by their last components, patterns the whole name, an existing name only itself", () => {
    expect(resolveTargets(tree(), ["emb"])).toEqual(["a.emb", "b.emb"]);
    expect(resolveTargets(tree(), ["b.emb"])).toEqual(["b.emb"]);
    expect(resolveTargets(tree(), ".*emb")).toEqual(["a.emb", "a.pos_emb", "b.emb"]);
    expect(resolveTargets(tree(), "a.emb")).toEqual(["a.emb"]);
    expect(resolveTargets(tree(), String.raw`\A(?P<side>[ab])\.emb\Z`)).toEqual(["a.emb", "b.emb"]);
  });

  test("a pattern that matches no whole name, and a module of another kind, are refused", async () => {
    expect(await caught(() => resolveTargets(tree(), "emb"))).toMatchObject({
      code: "NOT_FOUND",
      fields: { near: expect.arrayContaining(["a.emb"]) },
    });
    expect(await caught(() => resolveTargets(tree(), ["norm"]))).toMatchObject({
      code: "KIND",
      fields: { name: "norm" },
    });
    expect(await caught(() => resolveTargets(tree(), ["emb", "wte"]))).toMatchObject({
      code: "NOT_FOUND",
      message: expect.stringContaining("wte"),
    });
  });

  test.each([
    ["a(b", 1],
    ["x[", 1],
    ["a++b", 1],
    ["(?>a)b", 0],
    ["ab(?i)c", 2],
    ["a)", 1],
    [String.raw`[*+]\\h\h`, 7],
    [String.raw`q\p{L}`, 1],
  ])("the pattern %s fails at position %i", async (pattern, position) => {
    expect(await caught(() => resolveTargets(tree(), pattern))).toMatchObject({
      code: "REGEX",
      fields: { pattern, position },
    });
  });
});

describe("A-14, A-30: two embeddings of different width, one of them scaled", () => {
  test.each([1, 1000, 0])("take the same ids, and a scale of %i is applied to trained rows too", async (scale) => {
    const model = new TwoTables(scale);
    const peft = getPeftModel(
      model,
      new TrainableTokensConfig({ token_indices: [5, 2], target_modules: ["emb", "pos_emb"] }),
    );
    expect(
      [...peft.layers()].map(
        ([
          path,
          {
            trainable_tokens_delta: { default: rows },
          },
        ]) => [path, rows!.shape],
      ),
    ).toEqual([
      ["emb", [2, 4]],
      ["pos_emb", [2, 3]],
    ]);
    setRows(peft, "default");
    using _scope = new Scope();
    const input = { input_ids: [[5, 1, 2]], output_hidden_states: true };
    const [hidden] = peft.forward(input).hidden_states!;
    const trained = peft.layers().get("pos_emb")!.trainable_tokens_delta["default"]!.dataSync();
    const values = hidden!.dataSync();
    expect([0, 1, 2].map((j) => values[4 + j])).toEqual([0, 1, 2].map((j) => Math.fround(trained[j]! * scale)));
    await peft.mergeAdapter();
    expect(peft.forward(input).hidden_states![0]!.dataSync()).toEqual(values);
  });
  test("ids beyond the smaller table are refused, by its name", async () => {
    const config = new TrainableTokensConfig({ token_indices: [8], target_modules: ["emb", "pos_emb"] });
    expect(await caught(() => getPeftModel(new TwoTables(1), config))).toMatchObject({
      code: "INDEX_RANGE",
      fields: { module: "pos_emb", rows: 7 },
    });
  });
  test("a position table is no target by its last letters", () => {
    const peft = getPeftModel(
      new TwoTables(1),
      new TrainableTokensConfig({ token_indices: [1], target_modules: ["emb"] }),
    );
    expect([...peft.layers().keys()]).toEqual(["emb"]);
  });
});

test("padding rows are read and get no gradient from lookups", () => {
  const base = makeBase("llama");
  const embedding = new Embedding((base.moduleAt("model.embed_tokens") as Embedding).weight, 4);
  Object.assign(base.moduleAt("model")!, { embed_tokens: embedding });
  const peft = getPeftModel(base, new TrainableTokensConfig({ token_indices: [4, 1] }));
  setRows(peft, "default");
  peft.backward(peft.forward({ input_ids: [[4, 1, 4]], labels: [[4, 1, 4]] }).loss!);
  const gradient = Array.from(
    peft.layers().get("model.embed_tokens")!.trainable_tokens_delta["default"]!.grad!.dataSync(),
  );
  expect(gradient.slice(0, 6)).toEqual([0, 0, 0, 0, 0, 0]);
  expect(gradient.slice(6).every((g) => g !== 0)).toBe(true);
});
