import { openSafetensors, openFolder } from "@neolog/checkpoint";
import { AutoTokenizer } from "@neolog/models";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  type Ran,
  type Surroundings,
  TINY_VOCABULARY,
  contentsOf,
  filesOf,
  flags,
  neolog,
  temporaryFolder,
  writeLines,
  writeTinyModel,
} from "./testing.ts";

const ADAPTER = ["README.md", "adapter_config.json", "adapter_model.safetensors"];
const TOKENIZER = ["tokenizer.json", "tokenizer_config.json"];
const STATE = ["training_state.json", "training_state.safetensors"];
/** A checkpoint's files, below its run's folder. */
const checkpointOf = (step: number, ...files: readonly string[]): string[] =>
  [...ADAPTER, ...files, ...STATE].map((file) => `checkpoint-${step}/${file}`);

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

type Options = Parameters<typeof flags>[0];

const train = (options: Options, surroundings?: Surroundings): Promise<Ran> =>
  neolog(["train", ...flags({ model, data, lr: 0.05, "batch-size": 2, ...options })], surroundings);

/** The JSON object of a run that must succeed. */
async function trained(options: Options): Promise<{ losses: number[]; [key: string]: unknown }> {
  const { code, stdout, stderr } = await train({ ...options, json: true });
  expect(stderr).not.toContain("error");
  expect(code).toBe(0);
  return JSON.parse(stdout) as { losses: number[] };
}

/** Runs and is stopped after `steps` steps: the run looks at its signal once after each. */
function interrupted(options: Options, steps: number): Promise<Ran> {
  let looks = 0;
  const signal = Object.defineProperty(new AbortController().signal, "aborted", { get: () => ++looks >= steps });
  return train(options, { signal });
}

const rowsIn = (dir: string): Promise<Buffer> => readFile(join(dir, "adapter_model.safetensors"));
const lossesIn = async (dir: string): Promise<unknown> =>
  (JSON.parse(await readFile(join(dir, "training_state.json"), "utf8")) as { losses: unknown }).losses;

describe("neolog train", () => {
  test("adds tokens, lowers the loss and writes an adapter as PEFT does", async () => {
    const out = at("added");
    const result = await trained({ tokens: "wug, says", steps: 30, out });
    expect(Object.keys(result)).toEqual([
      "steps",
      "losses",
      "out",
      "seconds",
      "trainable",
      "all",
      "tokens",
      "padding_tokens",
      "peak_bytes",
      "reuse",
      "backend",
    ]);
    expect(result).toMatchObject({ steps: 30, out, trainable: 2 * 16 });
    expect(result.losses).toHaveLength(30);
    expect(result.losses.at(-1)).toBeLessThan(0.9 * result.losses[0]!);

    expect(await filesOf(out)).toEqual([...ADAPTER, ...checkpointOf(30, ...TOKENIZER), ...TOKENIZER]);
    expect(JSON.parse(await readFile(join(out, "adapter_config.json"), "utf8"))).toMatchObject({
      peft_type: "TRAINABLE_TOKENS",
      task_type: "CAUSAL_LM",
      token_indices: [TINY_VOCABULARY, TINY_VOCABULARY + 1],
      base_model_name_or_path: model,
    });
    const file = await openSafetensors(await (await openFolder(out)).open("adapter_model.safetensors"));
    await file.close();
    expect([...file.tensors.values()].map(({ name, shape }) => [name, shape])).toEqual([
      ["base_model.model.lm_head.trainable_tokens_delta", [2, 16]],
      ["base_model.model.model.embed_tokens.trainable_tokens_delta", [2, 16]],
    ]);
    const tokenizer = await AutoTokenizer.fromPretrained(out);
    expect(tokenizer.encode("wug says")).toEqual([TINY_VOCABULARY, TINY_VOCABULARY + 1]);
    expect(await filesOf(model)).not.toContain("adapter_config.json");
  });

  test("trains tokens that the tokenizer knows without growing the table", async () => {
    const { stdout, code } = await train({ tokens: "w", steps: 2, out: at("known") });
    expect(code).toBe(0);
    const id = (await AutoTokenizer.fromPretrained(model)).tokenToId("w")!;
    expect(stdout).toContain(`rows     w → ${id}\n`);
    expect((await AutoTokenizer.fromPretrained(at("known"))).vocabSize).toBe(TINY_VOCABULARY);
  });

  test("trains rows by their ids, without a tokenizer where rows are ids", async () => {
    const bare = at("bare");
    await mkdir(bare);
    for (const file of ["config.json", "model.safetensors"])
      await writeFile(join(bare, file), await readFile(join(model, file)));
    await writeLines(at("ids.jsonl"), [{ input_ids: [5, 6, 7, 8] }]);
    const result = await trained({
      model: bare,
      data: at("ids.jsonl"),
      "token-indices": "7,5",
      steps: 10,
      out: at("ids"),
    });
    expect(result.losses.at(-1)).toBeLessThan(result.losses[0]!);
    expect(await filesOf(at("ids"))).toEqual([...ADAPTER, ...checkpointOf(10)]);
    expect(JSON.parse(await readFile(join(at("ids"), "adapter_config.json"), "utf8"))).toMatchObject({
      token_indices: [7, 5],
    });
  });

  test("learns from conversations and hands the chat template on", async () => {
    const chat = await writeTinyModel(at("chat"));
    const template =
      "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";
    await writeFile(join(chat, "chat_template.jinja"), template);
    const messages = [
      { role: "user", content: "what is a wug?" },
      { role: "assistant", content: "a wug" },
    ];
    await writeLines(at("chat.jsonl"), [{ messages }]);
    const run = { model: chat, data: at("chat.jsonl"), tokens: "wug", steps: 10, out: at("chatted") };
    const { losses } = await trained(run);
    expect(losses.at(-1)).toBeLessThan(losses[0]!);
    expect(await readFile(join(at("chatted"), "chat_template.jinja"), "utf8")).toBe(template);
    const evaluated = await neolog([
      "eval",
      ...flags({ model: chat, adapter: at("chatted"), data: at("chat.jsonl"), json: true }),
    ]);
    // "a wug\n": the turn of the assistant
    expect(JSON.parse(evaluated.stdout)).toMatchObject({ tokens: 4 });
  });

  test("goes through the data three times unless told otherwise", async () => {
    expect((await trained({ tokens: "wug", out: at("default") })).losses).toHaveLength(3 * 3);
    expect((await trained({ tokens: "wug", epochs: 2, out: at("epochs") })).losses).toHaveLength(2 * 3);
  });

  test("gives the same bytes for the same seed, others for another", async () => {
    const rows: Buffer[] = [];
    for (const [name, seed] of [
      ["a", 4],
      ["b", 4],
      ["c", 5],
    ] as const) {
      await trained({ tokens: "wug", steps: 4, seed, out: at(`seed-${name}`) });
      rows.push(await rowsIn(at(`seed-${name}`)));
    }
    expect(rows[0]!.equals(rows[1]!)).toBe(true);
    expect(rows[0]!.equals(rows[2]!)).toBe(false);
  });

  test("says what trains, on what, and which tokens the data lack", async () => {
    const { stdout, stderr } = await train({ tokens: "wug,dax", steps: 2, out: at("said") });
    expect(stdout).toContain(`model    ${model} (llama)\n`);
    expect(stdout).toContain("rows     wug → 257 (new), dax → 258 (new)\n");
    expect(stdout).toContain(`data     ${data} (5 rows, `);
    expect(stdout).toContain("steps    2 of 2 rows\n");
    expect(stdout).toMatch(/^backend  wasm, \d+ threads?$/m);
    expect(stdout).toMatch(/^trainable params: 32 \|\| all params: [\d,]+ \|\| trainable%: 0\.\d{4}$/m);
    expect(stdout).toMatch(/wrote .*said after 2 steps, \d+\.\d s; loss \d\.\d{4} → \d\.\d{4}\n$/);
    expect(stderr).toBe(`note: dax becomes a token nowhere in ${data}; it learns only what it is not\n`);
  });
});

describe("an interrupted run", () => {
  test("goes on to the same bits", async () => {
    const run = { tokens: "wug", steps: 12, schedule: "cosine", "warmup-steps": 3, "weight-decay": 0.01 };
    await trained({ ...run, out: at("whole") });
    const out = at("stopped");
    const { code, stderr, stdout } = await interrupted({ ...run, out }, 5);
    expect(code).toBe(1);
    expect(stderr).toContain("stopped after step 5 of 12; --resume goes on from there");
    expect(stdout).not.toContain("wrote");
    expect(await filesOf(out)).toEqual(checkpointOf(5, ...TOKENIZER));

    // what is not given stays as it was
    const { losses } = await trained({ tokens: "wug", out, resume: out });
    expect(losses).toEqual(await lossesIn(at("whole/checkpoint-12")));
    expect(await filesOf(out)).toEqual([...ADAPTER, ...checkpointOf(12, ...TOKENIZER), ...TOKENIZER]);
    for (const file of ["adapter_model.safetensors", "checkpoint-12/training_state.safetensors"])
      expect((await readFile(join(out, file))).equals(await readFile(join(at("whole"), file))), file).toBe(true);
  });

  test("can be stopped again and again", async () => {
    const run = { "token-indices": "120,118", steps: 9 };
    await trained({ ...run, out: at("straight") });
    const out = at("often");
    await interrupted({ ...run, out }, 2);
    await interrupted({ ...run, out, resume: out }, 3);
    await interrupted({ ...run, out, resume: out }, 1);
    expect(new Set((await filesOf(out)).map((file) => file.split("/")[0]))).toEqual(new Set(["checkpoint-6"]));
    await trained({ ...run, out, resume: out });
    expect((await rowsIn(out)).equals(await rowsIn(at("straight")))).toBe(true);
  });

  test("started afresh forgets its checkpoints", async () => {
    const run = { tokens: "wug", steps: 6, out: at("afresh") };
    await interrupted(run, 4);
    await trained(run);
    await trained({ ...run, out: at("first-time") });
    expect(await contentsOf(at("afresh"))).toEqual(await contentsOf(at("first-time")));
  });

  test("leaves the adapter that was there before as it was", async () => {
    const out = at("kept");
    await trained({ tokens: "wug", steps: 3, out });
    const before = await contentsOf(out);
    await interrupted({ tokens: "wug", steps: 6, lr: 0.5, out }, 4);
    const after = await contentsOf(out);
    const adapter = (files: Record<string, string>) =>
      Object.fromEntries(Object.entries(files).filter(([file]) => !file.startsWith("checkpoint-")));
    expect(adapter(after)).toEqual(adapter(before));
    expect(Object.keys(after).filter((file) => file.startsWith("checkpoint-"))).toEqual(checkpointOf(4, ...TOKENIZER));
  });

  test("a finished run can be lengthened", async () => {
    await trained({ tokens: "wug", steps: 8, out: at("long") });
    await trained({ tokens: "wug", steps: 3, out: at("short") });
    const { losses } = await trained({ tokens: "wug", steps: 8, out: at("longer"), resume: at("short") });
    expect(losses).toHaveLength(8);
    expect((await rowsIn(at("longer"))).equals(await rowsIn(at("long")))).toBe(true);
    await trained({ tokens: "wug", steps: 8, out: at("short"), resume: at("short") });
    expect(await contentsOf(at("short"))).toEqual(await contentsOf(at("long")));
  });

  test("a finished run that is gone on with stays as it is", async () => {
    const run = { tokens: "wug", steps: 4, out: at("done") };
    const { losses } = await trained(run);
    const before = await contentsOf(run.out);
    expect(await trained({ ...run, resume: run.out })).toMatchObject({ steps: 4, losses });
    expect(await contentsOf(run.out)).toEqual(before);
  });

  test.each([
    [
      "other rows",
      { tokens: "wug,dax" },
      /^error: --resume .*: must train the same rows, got 257, 258 where the run has 257\n$/,
    ],
    [
      "other data",
      { data: "other.jsonl" },
      /^error: --resume .*: .*other.jsonl must be the file that the run began with, found other bytes\n$/,
    ],
    [
      "a folder of no run",
      { resume: "model" },
      /^error: --resume .*model: must hold training_state.json or a checkpoint, found neither; /,
    ],
    ["no folder", { resume: "nowhere" }, /^error: .*nowhere: must be a folder, found nothing\n$/],
  ])("does not go on with %s", async (_, wrong: { tokens?: string; data?: string; resume?: string }, message) => {
    const before = at("before");
    await trained({ tokens: "wug", steps: 2, out: before });
    await writeLines(at("other.jsonl"), [{ text: "the wug says nothing" }]);
    const { tokens = "wug", data = "data.jsonl", resume = "before" } = wrong;
    const { code, stderr } = await train({ tokens, data: at(data), resume: at(resume), out: at("none") });
    expect(code).toBe(1);
    expect(stderr).toMatch(message);
    expect(stderr.trimEnd().split("\n")).toHaveLength(1);
    await expect(filesOf(at("none"))).rejects.toThrow("ENOENT");
  });
});

describe("--out", () => {
  test("is replaced at the end, with nothing left of an earlier adapter", async () => {
    const out = at("reused");
    await trained({ tokens: "wug", steps: 2, out });
    await writeFile(join(out, "notes.txt"), "mine");
    await trained({ "token-indices": "120", steps: 3, out });
    expect(await filesOf(out)).toEqual([...ADAPTER, ...checkpointOf(3), "notes.txt"]);
    expect(await readFile(join(out, "notes.txt"), "utf8")).toBe("mine");
  });

  test("stays as it was when the loss is no number any more", async () => {
    const out = at("intact");
    await trained({ tokens: "wug", steps: 2, out });
    const before = await contentsOf(out);
    const { code, stderr, stdout } = await train({ tokens: "wug", steps: 9, lr: 1e38, schedule: "linear", out });
    expect(code).toBe(1);
    expect(stderr).toMatch(/^error: the loss must stay a number, got NaN in step [2-9]; a lower --lr may help\n$/);
    expect(stdout).not.toContain("wrote");
    expect(await contentsOf(out)).toEqual(before);
  });

  test("must not be the model's folder", async () => {
    const before = await contentsOf(model);
    const { code, stderr } = await train({ tokens: "wug", steps: 2, out: `${model}/` });
    expect(code).toBe(1);
    expect(stderr).toBe(`error: --out ${model}/: must be another folder than those read, got ${model}\n`);
    expect(await contentsOf(model)).toEqual(before);
  });
});

describe("train --batching, --packing", () => {
  /** Rows from 2 to 30 tokens long. */
  const lengths = Array.from({ length: 13 }, (_, i) => 2 + ((i * 11) % 29));
  let uneven: string;
  beforeAll(async () => {
    uneven = at("uneven.jsonl");
    const rows = lengths.map((length, i) => ({
      input_ids: Array.from({ length }, (_, t) => 1 + ((7 * i + 3 * t) % 200)),
    }));
    await writeLines(uneven, rows);
  });
  const run = (options: Options) => trained({ data: uneven, "token-indices": "1,5,9", "batch-size": 4, ...options });
  const ways: Options[] = [{ batching: "bucketed" }, { packing: true }, { batching: "bucketed", packing: true }];

  test("count the same tokens an epoch and less padding", async () => {
    const plain = await run({ epochs: 1, out: at("padded") });
    expect(plain["tokens"]).toBe(lengths.reduce((sum, length) => sum + length));
    for (const [i, way] of ways.entries()) {
      const result = await run({ epochs: 1, out: at(`way${i}`), ...way });
      expect(result["steps"]).toBe(plain["steps"]);
      expect(result["tokens"]).toBe(plain["tokens"]);
      expect(result["padding_tokens"]).toBeLessThan(plain["padding_tokens"] as number);
    }
  });

  test("packed, give the losses of the padded run", async () => {
    const padded = await run({ steps: 12, out: at("a") });
    const packed = await run({ steps: 12, out: at("b"), packing: true });
    for (const [step, loss] of packed.losses.entries()) expect(loss).toBeCloseTo(padded.losses[step]!, 5);
  });

  test.each(ways)("go on to the same bits in the middle of an epoch, flags as they were: %j", async (way) => {
    const whole = at("whole");
    const part = at("part");
    const { losses } = await run({ steps: 11, out: whole, ...way });
    await run({ steps: 6, out: part, ...way });
    const on = await run({ steps: 11, out: part, resume: part });
    expect(on.losses).toEqual(losses);
    expect((await rowsIn(part)).equals(await rowsIn(whole))).toBe(true);
  });

  test("bucketed, other seeds give other orders", async () => {
    const first = await run({ steps: 6, out: at("a"), batching: "bucketed" });
    const other = await run({ steps: 6, out: at("b"), batching: "bucketed", seed: 5 });
    expect(other.losses).not.toEqual(first.losses);
  });

  test("say how a run is batched", async () => {
    const { stdout } = await train({
      data: uneven,
      "token-indices": "1",
      steps: 2,
      "batch-size": 4,
      out: at("a"),
      batching: "bucketed",
      packing: true,
    });
    expect(stdout).toContain("steps    2 of 4 rows, of like lengths, packed\n");
    const { code, stderr } = await train({ "token-indices": "1", steps: 2, out: at("x"), batching: "sorted" });
    expect(code).toBe(2);
    expect(stderr).toContain("random, bucketed");
  });
});
