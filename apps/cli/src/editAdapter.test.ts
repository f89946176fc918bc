import { openFolder, openSafetensors, toTypedArray } from "@neolog/checkpoint";
import { AutoModelForCausalLM, AutoTokenizer } from "@neolog/models";
import { PeftModel } from "@neolog/peft-tokens";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { contentsOf, flags, neolog, temporaryFolder, writeLines, writeTinyModel } from "./testing.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
const at = (name: string): string => join(folder.path, name);
const TOKENIZER = ["tokenizer.json", "tokenizer_config.json"];
const FILES = ["README.md", "adapter_config.json", "adapter_model.safetensors"];

/** model/; adapters wug (257 new), a (120, 3) and b (120) on it. */
beforeAll(async () => {
  folder = await temporaryFolder();
  const model = await writeTinyModel(at("model"));
  await writeLines(at("data.jsonl"), [{ text: "the wug says dax" }]);
  for (const [out, rows] of [
    ["wug", { tokens: "wug" }],
    ["a", { "token-indices": "120,3" }],
    ["b", { "token-indices": "120" }],
  ] as const) {
    const { code } = await neolog([
      "train",
      ...flags({ model, data: at("data.jsonl"), steps: 3, lr: 0.1, out: at(out), ...rows }),
    ]);
    expect(code).toBe(0);
  }
  const json = JSON.parse(await readFile(join(at("a"), "adapter_config.json"), "utf8"));
  await mkdir(at("nameless"));
  await writeFile(
    join(at("nameless"), "adapter_config.json"),
    JSON.stringify({ ...json, base_model_name_or_path: null }),
  );
});
afterAll(() => folder[Symbol.asyncDispose]());

/** Ids of an adapter and the row of each. */
async function rowsOf(name: string): Promise<Map<number, number[]>> {
  const json = JSON.parse(await readFile(join(at(name), "adapter_config.json"), "utf8"));
  const file = await openSafetensors(await (await openFolder(at(name))).open("adapter_model.safetensors"));
  const key = [...file.tensors.keys()].find((k) => k.includes("embed_tokens"))!;
  const values = Array.from(toTypedArray(await file.read(key), key), Number);
  await file.close();
  const ids = json.token_indices as number[];
  const width = values.length / ids.length;
  return new Map(ids.map((id, i) => [id, values.slice(i * width, (i + 1) * width)]));
}
const tableRow = async (id: number): Promise<number[]> => {
  const base = await AutoModelForCausalLM.fromPretrained(at("model"));
  return Array.from(new Map(base.namedParameters()).get("model.embed_tokens.weight")!.dataSync()).slice(
    id * 16,
    (id + 1) * 16,
  );
};
const run = async (argv: readonly string[]) => {
  const { code, stdout, stderr } = await neolog([...argv, "--json"]);
  expect(stderr).toBe("");
  expect(code).toBe(0);
  return JSON.parse(stdout);
};
const adapters = (...names: string[]): string[] => names.flatMap((name) => ["--adapter", at(name)]);

describe("neolog combine", () => {
  test("writes all tokens of several adapters, with the base that they name", async () => {
    const told = await run(["combine", ...adapters("wug", "a"), "--out", at("both")]);
    expect(told).toMatchObject({
      token_indices: [257, 120, 3],
      weights: null,
      files: [...FILES, ...TOKENIZER].toSorted(),
    });
    expect(await rowsOf("both")).toEqual(new Map([...(await rowsOf("wug")), ...(await rowsOf("a"))]));
    const base = await AutoModelForCausalLM.fromPretrained(at("model"));
    base.resizeTokenEmbeddings(258);
    await PeftModel.fromPretrained(base, at("both"), { onWarning: ({ message }) => expect.fail(message) });
  });

  test("--weights gives base + Σ weight · (row − base)", async () => {
    await run(["combine", ...adapters("a", "b"), "--weights", "0.75,0.5", "--out", at("weighted")]);
    const [a, b, weighted] = [await rowsOf("a"), await rowsOf("b"), await rowsOf("weighted")];
    expect([...weighted.keys()]).toEqual([120, 3]);
    for (const id of [120, 3]) {
      const o = await tableRow(id);
      const expected = o.map((x, j) => x + 0.75 * (a.get(id)![j]! - x) + 0.5 * ((b.get(id)?.[j] ?? x) - x));
      weighted.get(id)!.forEach((x, j) => expect(x).toBeCloseTo(expected[j]!, 5));
    }
  });

  test.each([
    [["--overlap", "first"], "a"],
    [["--overlap", "last"], "b"],
  ])("%s decides whose row a shared token has", async (more, owner) => {
    await run(["combine", ...adapters("a", "b"), ...more, "--out", at(`owned-${owner}`)]);
    expect((await rowsOf(`owned-${owner}`)).get(120)).toEqual((await rowsOf(owner)).get(120));
  });
});

describe("neolog tokens", () => {
  test("add: new tokens join the tokenizer, known ones start as the base's", async () => {
    const told = await run(["tokens", "add", ...adapters("wug"), "--tokens", "dax", "--out", at("more")]);
    expect(told).toMatchObject({ added: [258], token_indices: [257, 258] });
    expect((await AutoTokenizer.fromPretrained(at("more"))).encode("wugdax")).toEqual([257, 258]);
    expect((await rowsOf("more")).get(257)).toEqual((await rowsOf("wug")).get(257));
    await run(["tokens", "add", ...adapters("b"), "--token-indices", "7", "--out", at("seven")]);
    expect((await rowsOf("seven")).get(7)).toEqual(await tableRow(7));
  });
  test("remove: the others stay", async () => {
    expect(
      await run(["tokens", "remove", ...adapters("a"), "--token-indices", "120", "--out", at("less")]),
    ).toMatchObject({
      removed: [120],
      token_indices: [3],
    });
    expect((await rowsOf("less")).get(3)).toEqual((await rowsOf("a")).get(3));
  });
  test("remap: rows go to other tokens", async () => {
    await run(["tokens", "remap", ...adapters("a"), "--map", "120=3,3=120", "--out", at("moved")]);
    const [a, moved] = [await rowsOf("a"), await rowsOf("moved")];
    expect([moved.get(3), moved.get(120)]).toEqual([a.get(120), a.get(3)]);
  });
});

describe("neolog trim", () => {
  test("leaves the kept tokens' logits, in model, tokenizer and adapter", async () => {
    const keep = "0,97-120,3,257";
    const told = await run(["trim", ...flags({ model: at("model"), keep, out: at("small") }), ...adapters("wug")]);
    expect(told).toMatchObject({ kept: 27, dropped: 231, adapters: ["wug"] });
    const tokenizer = await AutoTokenizer.fromPretrained(at("small"));
    const old = await AutoTokenizer.fromPretrained(at("wug"));
    expect(tokenizer.vocabSize).toBe(27);
    const text = "abcwug";
    expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
    expect(tokenizer.encode(text).map((id) => told.ids[id])).toEqual(old.encode(text));

    const logits = async (model: string, adapter: string, ids: number[], grow?: number): Promise<number[]> => {
      const base = await AutoModelForCausalLM.fromPretrained(at(model));
      if (grow) base.resizeTokenEmbeddings(grow);
      const peft = await PeftModel.fromPretrained(base, at(adapter));
      return Array.from(peft.forward({ input_ids: [ids] }).logits.dataSync()).slice(-base.config.vocab_size);
    };
    const before = await logits("model", "wug", old.encode(text), 258);
    expect(await logits("small", "small/wug", tokenizer.encode(text))).toEqual(
      told.ids.map((id: number) => before[id]),
    );
    const json = JSON.parse(await readFile(join(at("small"), "wug", "adapter_config.json"), "utf8"));
    expect(json.base_model_name_or_path).toBe(at("small"));
  });
});

/** Command lines with what is wrong with them; none writes anything. */
const BAD: readonly (readonly [string, (out: string) => string[], 1 | 2, RegExp])[] = [
  [
    "shared tokens without a rule",
    (out) => ["combine", ...adapters("a", "b"), "--out", out],
    1,
    /a and b sharing 120 on model.embed_tokens; say overlap: "first", "last" or "mean"/,
  ],
  [
    "too few weights",
    (out) => ["combine", ...adapters("a", "b"), "--weights", "1", "--out", out],
    2,
    /--weights: must be one for each of 2 adapters, got 1/,
  ],
  [
    "weights that are none",
    (out) => ["combine", ...adapters("a", "b"), "--weights", "1,x", "--out", out],
    2,
    /It must be numbers, parted by commas/,
  ],
  [
    "weights and a rule",
    (out) => ["combine", ...adapters("a", "b"), "--weights", "1,1", "--overlap", "mean", "--out", out],
    2,
    /one of them must be given, got both/,
  ],
  [
    "an unknown rule",
    (out) => ["combine", ...adapters("a", "b"), "--overlap", "sum", "--out", out],
    2,
    /Allowed choices are error, first, last, mean/,
  ],
  [
    "an adapter that is none",
    (out) => ["combine", ...adapters("a", "model"), "--out", out],
    1,
    /model: must hold adapter_config.json, found none/,
  ],
  [
    "an adapter without a base",
    (out) => ["combine", ...adapters("nameless", "a"), "--out", out],
    1,
    /nameless\/adapter_config.json: must name the base model, or --model must, found neither/,
  ],
  [
    "the result over an adapter",
    () => ["combine", ...adapters("a", "wug"), "--out", at("a")],
    1,
    /must be another folder than those read/,
  ],
  [
    "tokens of neither kind",
    (out) => ["tokens", "add", ...adapters("a"), "--out", out],
    2,
    /exactly one must be given, got neither/,
  ],
  [
    "a token that is there",
    (out) => ["tokens", "add", ...adapters("a"), "--token-indices", "3", "--out", out],
    1,
    /must not have 3 already/,
  ],
  [
    "a token beyond the table",
    (out) => ["tokens", "add", ...adapters("a"), "--token-indices", "999", "--out", out],
    1,
    /below the 257 rows .* got 999/,
  ],
  [
    "a token that is not there",
    (out) => ["tokens", "remove", ...adapters("a"), "--token-indices", "5", "--out", out],
    1,
    /must have the ids, got 5/,
  ],
  [
    "all tokens at once",
    (out) => ["tokens", "remove", ...adapters("b"), "--token-indices", "120", "--out", out],
    1,
    /must keep a token, got all of them; delete the adapter/,
  ],
  [
    "a pair that is none",
    (out) => ["tokens", "remap", ...adapters("a"), "--map", "3:5", "--out", out],
    2,
    /It must be pairs like 257=300/,
  ],
  [
    "two rows for one token",
    (out) => ["tokens", "remap", ...adapters("a"), "--map", "3=120", "--out", out],
    1,
    /must be unique, got 120/,
  ],
  [
    "an old id that is not there",
    (out) => ["tokens", "remap", ...adapters("a"), "--map", "5=6", "--out", out],
    1,
    /must train the old ids, got 5; it has 120, 3/,
  ],
  [
    "a range that is none",
    (out) => ["trim", ...flags({ model: at("model"), keep: "9-3", out })],
    2,
    /ids and ranges like 0-255,300, got "9-3"/,
  ],
  [
    "an id beyond the vocabulary",
    (out) => ["trim", ...flags({ model: at("model"), keep: "0,900", out })],
    1,
    /must be different ones in \[0, 257\), got 900/,
  ],
  [
    "a trained token left out",
    (out) => ["trim", ...flags({ model: at("model"), keep: "0-50", out }), ...adapters("a")],
    1,
    /trained by a on model.embed_tokens must be kept, left out 120; remove them from the adapter/,
  ],
  [
    "the end token left out",
    (out) => ["trim", ...flags({ model: at("model"), keep: "5-50", out })],
    1,
    /\(id 0\) must be kept/,
  ],
];

test.each(BAD)("%s: one clear line, and nothing is written", async (_, argv, code, says) => {
  const before = await contentsOf(folder.path);
  const ran = await neolog(argv(at("refused")));
  expect(ran.stderr).toMatch(says);
  expect(ran.stderr).toMatch(/^error: [^\n]{1,400}\n$/);
  expect(ran.stderr).not.toContain("unexpected;");
  expect({ code: ran.code, stdout: ran.stdout }).toEqual({ code, stdout: "" });
  expect(await contentsOf(folder.path)).toEqual(before);
});
