import { openFolder, openSafetensors, toTypedArray } from "@neolog/checkpoint";
import { AutoModelForCausalLM, AutoTokenizer } from "@neolog/models";
import type { Embedding } from "@neolog/nn";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { flags, neolog, temporaryFolder, writeLines, writeTinyModel } from "./testing.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let model: string;
let data: string;
const at = (name: string): string => join(folder.path, name);

beforeAll(async () => {
  folder = await temporaryFolder();
  model = await writeTinyModel(at("model"));
  data = at("data.jsonl");
  await writeLines(
    data,
    ["moo", "quack", "meow", "woof", "baa"].map((sound) => ({ text: `the wug says ${sound}` })),
  );
});
afterAll(() => folder[Symbol.asyncDispose]());

const train = (options: Parameters<typeof flags>[0]) =>
  neolog(["train", ...flags({ model, data, lr: 0.05, "batch-size": 2, ...options })]);
async function rowsIn(dir: string): Promise<number[]> {
  const file = await openSafetensors(await (await openFolder(dir)).open("adapter_model.safetensors"));
  const name = [...file.tensors.keys()].find((key) => key.includes("trainable_tokens_delta"))!;
  const rows = [...toTypedArray(await file.read(name), name)];
  await file.close();
  return rows;
}
/** The rows of the base for ids. */
async function baseRows(): Promise<(id: number) => number[]> {
  const base = await AutoModelForCausalLM.fromPretrained(model);
  const { weight } = base.moduleAt(base.embeddingPath) as Embedding;
  const values = [...weight.dataSync()];
  const width = weight.shape[1]!;
  return (id) => values.slice(id * width, (id + 1) * width);
}
/** A step so small that rows stay where they start, to float32. */
const STILL = { steps: 1, lr: 1e-30 };

describe("train --init", () => {
  test("description: the mean of the rows of its tokens", async () => {
    const out = at("described");
    const text = "the cow says moo";
    expect((await train({ tokens: "<wug>", out, ...STILL, init: `description: ${text}` })).code).toBe(0);
    const tokenizer = await AutoTokenizer.fromPretrained(model);
    const tokens = tokenizer.encode(text, { addSpecialTokens: false });
    const row = await baseRows();
    const mean = row(0).map((_, j) => Math.fround(tokens.reduce((sum, id) => sum + row(id)[j]!, 0) / tokens.length));
    expect(tokens.length).toBeGreaterThan(1);
    expect(await rowsIn(out)).toEqual(mean);
    const config = JSON.parse(await readFile(join(out, "adapter_config.json"), "utf8")) as object;
    expect(config).toMatchObject({ init_weights: false });
  });

  test("copy: the row of a token, by name or id; each new row has it", async () => {
    const tokenizer = await AutoTokenizer.fromPretrained(model);
    const [id] = tokenizer.encode("c", { addSpecialTokens: false }) as [number];
    const row = await baseRows();
    for (const [name, from] of [
      ["name", "c"],
      ["id", String(id)],
    ] as const) {
      const out = at(`copy-${name}`);
      expect((await train({ tokens: "<wug>,<dax>", out, ...STILL, init: `copy: ${from}` })).code).toBe(0);
      expect(await rowsIn(out)).toEqual([...row(id), ...row(id)]);
    }
  });

  test("random: other rows for another seed, the same for the same", async () => {
    const runs = [];
    for (const [name, seed] of [
      ["a", 1],
      ["b", 1],
      ["c", 2],
    ] as const) {
      await train({ "token-indices": "1,2", out: at(name), ...STILL, init: "random", seed });
      runs.push(await rowsIn(at(name)));
    }
    expect(runs[1]).toEqual(runs[0]);
    expect(runs[2]).not.toEqual(runs[0]);
  });

  test("says what it cannot use", async () => {
    const refused = await train({ tokens: "<wug>", out: at("x"), init: "zeros" });
    expect(refused.code).toBe(2);
    expect(refused.stderr).toContain('It must be "original", "mean", "random", "copy: <token or id>"');
    const unknown = await train({ tokens: "<wug>", out: at("x"), init: "copy: the cow" });
    expect(unknown.code).toBe(1);
    expect(unknown.stderr).toContain('--init copy: must name one token or its id, got "the cow" (7 tokens)');
    const outside = await train({ tokens: "<wug>", out: at("x"), init: "copy: 99999" });
    expect(outside.code).toBe(1);
    expect(outside.stderr).toContain("init: ids of copy.from must be in");
    const again = await train({ tokens: "<wug>", out: at("x"), init: "mean", resume: at("a") });
    expect(again.code).toBe(2);
  });
});

describe("train --row-updates lazy --decay-toward original", () => {
  const run = { "token-indices": "3,118,120", "weight-decay": 0.5, "row-updates": "lazy", "decay-toward": "original" };

  test("A-91 goes on to the same bits, flags as they were", async () => {
    expect((await train({ ...run, steps: 9, out: at("whole") })).code).toBe(0);
    expect((await train({ ...run, steps: 4, out: at("part") })).code).toBe(0);
    const on = await train({ "token-indices": "3,118,120", steps: 9, out: at("part"), resume: at("part") });
    expect(on.code).toBe(0);
    for (const file of ["adapter_model.safetensors", "checkpoint-9/training_state.safetensors"])
      expect((await readFile(join(at("part"), file))).equals(await readFile(join(at("whole"), file))), file).toBe(true);
  });

  test("other modes give other rows", async () => {
    await train({ ...run, steps: 3, out: at("lazy") });
    await train({ ...run, steps: 3, out: at("dense"), "row-updates": "all", "decay-toward": "zero" });
    expect(await rowsIn(at("lazy"))).not.toEqual(await rowsIn(at("dense")));
    expect((await train({ ...run, out: at("x"), "row-updates": "some" })).code).toBe(2);
  });
});
