import { AutoModelForCausalLM, AutoTokenizer } from "@neolog/models";
import { cp, mkdir, readFile, readdir, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { contentsOf, flags, neolog, temporaryFolder, writeLines, writeTinyModel } from "./testing.ts";

let origin: Awaited<ReturnType<typeof temporaryFolder>>;

/** model/, other/ (twice as wide), adapter/ (one new row on model/), data.jsonl */
beforeAll(async () => {
  origin = await temporaryFolder();
  const at = (name: string): string => join(origin.path, name);
  const model = await writeTinyModel(at("model"));
  await writeTinyModel(at("other"), { hidden_size: 32 });
  await writeLines(at("data.jsonl"), [{ text: "the wug says moo" }]);
  const { code } = await neolog([
    "train",
    ...flags({ model, data: at("data.jsonl"), tokens: "wug", steps: 2, out: at("adapter") }),
  ]);
  expect(code).toBe(0);
});
afterAll(() => origin[Symbol.asyncDispose]());

type Files = Readonly<Record<"model" | "other" | "adapter" | "data.jsonl" | "out" | "file" | "nowhere", string>>;

interface Case {
  readonly title: string;
  /** Spoils a fresh copy of the files. */
  readonly spoil?: (at: Files) => Promise<void>;
  readonly argv: (at: Files) => readonly string[];
  readonly code?: 1 | 2;
  /** What the line says, with folders without what stands before their name. */
  readonly says: RegExp;
}

const train = (at: Files, options: Parameters<typeof flags>[0] = {}): string[] => [
  "train",
  ...flags({ model: at.model, data: at["data.jsonl"], out: at.out, steps: 2, ...rowsOr({ tokens: "wug" }, options) }),
];
const rowsOr = (rows: Parameters<typeof flags>[0], options: Parameters<typeof flags>[0]) =>
  "token-indices" in options ? options : { ...rows, ...options };
const merge = (at: Files): string[] => ["merge", ...flags({ model: at.model, adapter: at.adapter, out: at.out })];
const generate = (at: Files): string[] => ["generate", ...flags({ model: at.model, prompt: "the wug" })];
const evaluate = (at: Files): string[] => [
  "eval",
  ...flags({ model: at.model, adapter: at.adapter, data: at["data.jsonl"] }),
];

/** Rewrites keys of a JSON file; undefined takes a key away. */
async function edit(file: string, change: Readonly<Record<string, unknown>>): Promise<void> {
  const json = JSON.parse(await readFile(file, "utf8")) as Record<string, unknown>;
  await writeFile(file, JSON.stringify({ ...json, ...change }));
}

/** Rewrites the header of a safetensors file, without changing its length. */
async function editHeader(file: string, change: (header: string) => string): Promise<void> {
  const bytes = await readFile(file);
  const length = Number(bytes.readBigUInt64LE());
  const header = bytes.subarray(8, 8 + length).toString();
  const edited = change(header);
  expect(edited).not.toBe(header);
  expect(edited).toHaveLength(length);
  bytes.write(edited, 8);
  await writeFile(file, bytes);
}

/** Puts the model into shards; → their names. */
async function shard(at: Files): Promise<string[]> {
  const model = await AutoModelForCausalLM.fromPretrained(at.model);
  await model.savePretrained(at.model, { maxShardSize: "12KB" });
  return (await readdir(at.model)).filter((name) => name.includes("-of-")).toSorted();
}

const weights = (at: Files): string => join(at.model, "model.safetensors");
const config = (at: Files): string => join(at.model, "config.json");
const adapterConfig = (at: Files): string => join(at.adapter, "adapter_config.json");
const write = (text: string) => (at: Files) => writeFile(at["data.jsonl"], text);

const CASES: readonly Case[] = [
  {
    title: "missing model folder",
    argv: (at) => train(at, { model: at.nowhere }),
    says: /nowhere: must be a folder or a model in the Hugging Face cache, found nothing/,
  },
  {
    title: "model folder that is a file",
    argv: (at) => train(at, { model: at["data.jsonl"] }),
    says: /data.jsonl: must be a folder, found a file/,
  },
  {
    title: "missing adapter folder",
    argv: (at) => ["eval", ...flags({ model: at.model, adapter: at.nowhere, data: at["data.jsonl"] })],
    says: /nowhere: must be a folder, found nothing/,
  },
  {
    title: "weights missing",
    spoil: (at) => rm(weights(at)),
    argv: train,
    says: /model: must hold model.safetensors/,
  },
  {
    title: "config missing",
    spoil: (at) => rm(config(at)),
    argv: train,
    says: /model: must hold config.json, found none/,
  },
  {
    title: "config that is no JSON",
    spoil: (at) => writeFile(config(at), "{"),
    argv: train,
    says: /config.json: /,
  },
  {
    title: "weights that are no safetensors",
    spoil: (at) => writeFile(weights(at), "these are no tensors, whatever the name says"),
    argv: train,
    says: /model.safetensors: .*is this a safetensors file/,
  },
  {
    title: "a shard missing",
    spoil: async (at) => rm(join(at.model, (await shard(at))[0]!)),
    argv: generate,
    says: /model: must hold model-00001-of-0000\d.safetensors, found none/,
  },
  {
    title: "an index that disagrees with its shards",
    spoil: async (at) => {
      const [first, second] = await shard(at);
      const index = join(at.model, "model.safetensors.index.json");
      const json = JSON.parse(await readFile(index, "utf8")) as { weight_map: Record<string, string> };
      const moved = Object.entries(json.weight_map).map(([name, file]) => [name, file === first ? second : file]);
      await edit(index, { weight_map: Object.fromEntries(moved) });
    },
    argv: generate,
    says: /model-00002-of-0000\d.safetensors: must hold tensor "model.embed_tokens.weight", found none/,
  },
  {
    title: "a tensor in two shards",
    spoil: async (at) => {
      const [first, second] = await shard(at);
      await cp(join(at.model, first!), join(at.model, second!));
    },
    argv: generate,
    says: /must (hold tensor "|be in one shard, found ")/,
  },
  {
    title: "weights of a dtype that is no float's",
    spoil: (at) => editHeader(weights(at), (header) => header.replace('"F32"', '"I32"')),
    argv: generate,
    says: /a weight must be F64, F32, BF16 or F16, found I32; a quantized checkpoint must be saved again in Python/,
  },
  {
    title: "a tokenizer larger than the table",
    spoil: async (at) => {
      const tokenizer = await AutoTokenizer.fromPretrained(at.model);
      tokenizer.addTokens(["<wug>", "<dax>"]);
      await tokenizer.savePretrained(at.model);
    },
    argv: generate,
    says: /model: the table must have a row for every id of tokenizer.json, got 257 rows and ids up to 258; resizeTokenEmbeddings\(259\)/,
  },
  {
    title: "a chat template that throws",
    spoil: async (at) => {
      await writeFile(join(at.model, "chat_template.jinja"), "{{ raise_exception('roles must alternate') }}");
      await writeLines(at["data.jsonl"], [{ messages: [{ role: "assistant", content: "x" }] }]);
    },
    argv: train,
    says: /data.jsonl:1: chat template: must accept the messages, it says: roles must alternate/,
  },
  {
    title: "a chat template that breaks on its own",
    spoil: async (at) => {
      await writeFile(join(at.model, "chat_template.jinja"), "{{ messages[5].content.upper() }}");
      await writeLines(at["data.jsonl"], [{ messages: [{ role: "assistant", content: "x" }] }]);
    },
    argv: train,
    says: /data.jsonl:1: chat template: must accept the messages, it says: /,
  },
  {
    title: "empty weights",
    spoil: (at) => writeFile(weights(at), ""),
    argv: (at) => ["inspect", at.model],
    says: /model.safetensors: /,
  },
  {
    title: "truncated weights",
    spoil: (at) => truncate(weights(at), 20_000),
    argv: train,
    says: /model.safetensors: the file must end with its last tensor, at byte \d+, got 20000 bytes/,
  },
  {
    title: "a header that lies about offsets",
    spoil: (at) => editHeader(weights(at), (header) => header.replace("[0,16448]", "[0,16449]")),
    argv: train,
    says: /model.safetensors: "model.embed_tokens.weight": F32 \[257,16\] must take 16448 bytes, got 16449/,
  },
  {
    title: "a header that lies about shapes",
    spoil: (at) => editHeader(weights(at), (header) => header.replace("[257,16]", "[259,16]")),
    argv: train,
    says: /model.safetensors: /,
  },
  {
    title: "config without model_type",
    spoil: (at) => edit(config(at), { model_type: undefined }),
    argv: train,
    says: /config.json: "model_type": must be one of .*gpt2.*, found none/,
  },
  {
    title: "unknown model_type",
    spoil: (at) => edit(config(at), { model_type: "mamba" }),
    argv: train,
    says: /config.json: "model_type": must be one of .*gpt2.*, found "mamba"/,
  },
  {
    title: "weights of another shape than the config says",
    spoil: (at) => edit(config(at), { hidden_size: 32 }),
    argv: generate,
    says: /11 misshapen \(model.embed_tokens.weight: \[257, 32\] expected, \[257, 16\] found/,
  },
  {
    title: "a layer more than the weights have",
    spoil: (at) => edit(config(at), { num_hidden_layers: 2 }),
    argv: generate,
    says: /missing.*layers\.1/,
  },
  {
    title: "token id beyond the vocabulary",
    argv: (at) => train(at, { "token-indices": "5,257" }),
    says: /^error: --token-indices: ids must be below the 257 rows of the table, got 257; --tokens adds tokens/,
  },
  {
    title: "token id of a row beyond the vocabulary",
    spoil: write('{"input_ids": [1, 2, 3]}\n{"input_ids": [1, 999]}\n'),
    argv: (at) => train(at, { "token-indices": "5" }),
    says: /data.jsonl:2: ids must be in \[0, 257\), got 999/,
  },
  {
    title: "duplicate ids",
    argv: (at) => train(at, { "token-indices": "5,6,5" }),
    code: 2,
    says: /Each must be named once, got 5 again/,
  },
  {
    title: "duplicate tokens",
    argv: (at) => train(at, { tokens: "wug,wug" }),
    code: 2,
    says: /Each must be named once, got wug again/,
  },
  { title: "empty ids", argv: (at) => train(at, { "token-indices": "" }), code: 2, says: /It must be a whole number/ },
  { title: "empty tokens", argv: (at) => train(at, { tokens: "" }), code: 2, says: /Tokens must not be empty/ },
  {
    title: "an adapter with duplicate ids",
    spoil: (at) => edit(adapterConfig(at), { token_indices: [257, 257] }),
    argv: merge,
    says: /adapter_config.json: token_indices: ids must be unique, got 257 at position 1 again/,
  },
  {
    title: "an adapter without ids",
    spoil: (at) => edit(adapterConfig(at), { token_indices: [] }),
    argv: merge,
    says: /adapter_config.json: token_indices: must name at least one token id, got none/,
  },
  {
    title: "an adapter with an id beyond the vocabulary",
    spoil: (at) => edit(adapterConfig(at), { token_indices: [600] }),
    argv: merge,
    says: /adapter_config.json: token_indices: ids must be below the 258 rows of model.embed_tokens, got 600/,
  },
  {
    title: "an adapter for an unknown module",
    spoil: (at) => edit(adapterConfig(at), { target_modules: ["embed_tokenz"] }),
    argv: merge,
    says: /adapter_config.json: target_modules: .*embed_tokenz.*did you mean "model.embed_tokens"/,
  },
  {
    title: "an adapter of another method",
    spoil: (at) => edit(adapterConfig(at), { peft_type: "IA3" }),
    argv: evaluate,
    says: /adapter_config.json: "peft_type" must be one of .*TRAINABLE_TOKENS.*, found "IA3"/,
  },
  {
    title: "an adapter without config",
    spoil: (at) => rm(adapterConfig(at)),
    argv: evaluate,
    says: /adapter: must hold adapter_config.json, found none/,
  },
  {
    title: "an adapter without rows",
    spoil: (at) => rm(join(at.adapter, "adapter_model.safetensors")),
    argv: evaluate,
    says: /adapter: must hold adapter_model.safetensors, found none/,
  },
  {
    title: "an adapter cut off",
    spoil: (at) => truncate(join(at.adapter, "adapter_model.safetensors"), 100),
    argv: evaluate,
    says: /adapter_model.safetensors: /,
  },
  {
    title: "an adapter of another base",
    argv: (at) => ["merge", ...flags({ model: at.other, adapter: at.adapter, out: at.out })],
    says: /adapter_model.safetensors: .*\[1, 32\].*\[1, 16\]/,
  },
  {
    title: "a broken row",
    spoil: write('{"text": "fine"}\n\n{"text": "broken\n'),
    argv: train,
    says: /data.jsonl:3: must be a JSON object on one line, got /,
  },
  {
    title: "a row without text",
    spoil: write('{"txt": "fine"}\n'),
    argv: evaluate,
    says: /data.jsonl:1: must hold "text", "prompt" and "completion", "messages", or "input_ids", got keys txt/,
  },
  {
    title: "a conversation without a chat template",
    spoil: write('{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}\n'),
    argv: train,
    says: /data.jsonl:1: chat template: must be in chat_template.jinja or as "chat_template" in tokenizer_config.json, found none/,
  },
  { title: "empty data", spoil: write(""), argv: train, says: /data.jsonl: must hold at least one row, found none/ },
  {
    title: "missing data",
    argv: (at) => train(at, { data: at.nowhere }),
    says: /nowhere: must be a JSONL file, found nothing/,
  },
  {
    title: "data that is a folder",
    argv: (at) => train(at, { data: at.model }),
    says: /model: must be a JSONL file, found a folder/,
  },
  {
    title: "output folder that is a file",
    argv: (at) => train(at, { out: at.file }),
    says: /file: must be a folder to write to, found a file/,
  },
  {
    title: "output folder below a file",
    argv: (at) => ["merge", ...flags({ model: at.model, adapter: at.adapter, out: join(at.file, "out") })],
    says: /file: must be a folder to write to, found a file/,
  },
  {
    title: "tokens without a tokenizer",
    spoil: (at) => rm(join(at.model, "tokenizer.json")),
    argv: train,
    says: /model: must hold tokenizer.json for --tokens, found none; --token-indices needs none/,
  },
  {
    title: "text without a tokenizer",
    spoil: (at) => rm(join(at.model, "tokenizer.json")),
    argv: (at) => train(at, { "token-indices": "5" }),
    says: /data.jsonl:1: text needs a tokenizer; the model's folder must hold tokenizer.json/,
  },
  {
    title: "a prompt without a tokenizer",
    spoil: (at) => rm(join(at.model, "tokenizer.json")),
    argv: generate,
    says: /model: must hold tokenizer.json, found none; text needs a tokenizer/,
  },
  {
    title: "a broken tokenizer",
    spoil: (at) => writeFile(join(at.model, "tokenizer.json"), "{}"),
    argv: generate,
    says: /tokenizer.json: /,
  },
  {
    title: "an unknown backend",
    argv: (at) => train(at, { backend: "abacus" }),
    says: /name must be one of reference, cpu.*, got "abacus"/,
  },
];

describe("bad input is one clear line, and nothing is written:", () => {
  test.each(CASES)("$title", async ({ spoil, argv, code = 1, says }) => {
    await using folder = await temporaryFolder();
    await cp(origin.path, folder.path, { recursive: true });
    const names = ["model", "other", "adapter", "data.jsonl", "out", "file", "nowhere"] as const;
    const at = Object.fromEntries(names.map((name) => [name, join(folder.path, name)])) as Files;
    await writeFile(at.file, "");
    await spoil?.(at);
    const before = await contentsOf(folder.path);

    const ran = await neolog(argv(at));
    expect(ran.stderr.replaceAll(`${folder.path}/`, "")).toMatch(says);
    expect(ran.stderr).toMatch(/^error: [^\n]{1,400}\n$/);
    expect(ran.stderr).not.toContain("unexpected;");
    expect(ran.code).toBe(code);
    expect(ran.stdout).toBe("");
    expect(await contentsOf(folder.path)).toEqual(before);
  });

  test("an empty folder is no output yet", async () => {
    await using folder = await temporaryFolder();
    await mkdir(join(folder.path, "out"));
    const { code } = await neolog([
      "merge",
      ...flags({
        model: join(origin.path, "model"),
        adapter: join(origin.path, "adapter"),
        out: join(folder.path, "out"),
      }),
    ]);
    expect(code).toBe(0);
  });
});
