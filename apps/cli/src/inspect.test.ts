import {
  type FileContent,
  type StoredTensor,
  memorySource,
  openFolder,
  openSafetensors,
  toTypedArray,
  writeFolder,
  writeSafetensors,
} from "@neolog/checkpoint";
import { AutoModelForCausalLM, type PretrainedConfig } from "@neolog/models";
import { cp, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { flags, neolog, temporaryFolder, writeLines, writeTinyModel } from "./testing.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let model: string;
let adapter: string;

beforeAll(async () => {
  folder = await temporaryFolder();
  model = await writeTinyModel(join(folder.path, "model"));
  adapter = join(folder.path, "adapter");
  const data = join(folder.path, "data.jsonl");
  await writeLines(data, [{ text: "the wug says dax" }]);
  await neolog(["train", ...flags({ model, data, tokens: "wug,dax", steps: 2, out: adapter })]);
});
afterAll(() => folder[Symbol.asyncDispose]());

interface Inspected {
  readonly tensors: readonly { readonly name: string; readonly shape: readonly number[] }[];
  readonly rows: readonly { readonly norm: number }[];
}
const baseConfig = async (dir: string): Promise<PretrainedConfig> =>
  JSON.parse(await readFile(join(dir, "config.json"), "utf8")) as PretrainedConfig;
const inspected = async (dir: string): Promise<Inspected> =>
  JSON.parse((await neolog(["inspect", dir, "--json"])).stdout) as Inspected;

describe("neolog inspect", () => {
  test("shows a model from its headers", async () => {
    const found = await inspected(model);
    // 257·16 embedding, 16·16 + 2·(8·16) + 16·16 attention, 3·16·32 feed-forward, 3·16 norms
    const all = 257 * 16 + 768 + 1536 + 48;
    expect(found).toMatchObject({
      kind: "model",
      dir: model,
      config: { model_type: "llama" },
      tokens: 257,
      trainable: 0,
      all,
      bytes: 4 * all,
    });
    expect(found.tensors).toHaveLength(11);
    expect(found.tensors[0]).toEqual({ name: "model.embed_tokens.weight", dtype: "F32", shape: [257, 16] });
    const { stdout } = await neolog(["inspect", model]);
    expect(stdout).toMatch(/\ntrainable params: 0 \|\| all params: 6,464 \|\| trainable%: 0.0000\n$/);
  });

  test("draws the model as it is built, blocks that are alike once", async () => {
    const deep = join(folder.path, "deep");
    const config = { ...(await baseConfig(model)), num_hidden_layers: 3, tie_word_embeddings: false };
    await AutoModelForCausalLM.fromConfig(config).savePretrained(deep);
    const { stdout } = await neolog(["inspect", deep, "--context", "64"]);
    expect(stdout.split("\n").slice(1, 13)).toEqual([
      "  model_type  llama, LlamaForCausalLM",
      "  built of    3 layers of width 16, 2 heads (1 for keys), 64 positions",
      "  vocab_size  257",
      "  tokenizer   none",
      "  weights     61.0 kB F32",
      "",
      "  model                              LlamaForCausalLM                     15,248",
      "  ├─ model                           LlamaModel                           11,136",
      "  │  ├─ embed_tokens                 Embedding         [257, 16]  F32      4,112",
      "  │  ├─ layers.0…2                   LlamaDecoderLay…                  3 × 2,336",
      "  │  │  ├─ self_attn                 LlamaAttention                          768",
      "  │  │  │  ├─ q_proj                 Linear            [16, 16]   F32        256",
    ]);
    expect(stdout).toContain("  │  │  └─ post_attention_layernorm  RmsNorm           [16]       F32         16\n");
    expect(stdout).toContain("\n  └─ lm_head                         Linear            [257, 16]  F32      4,112\n");
    // keys and values of 64 tokens: 3 layers · 2 · 8 floats
    expect(stdout).toMatch(/^ {2}memory to load +61\.0 kB {2}the weights, as they are stored$/m);
    expect(stdout).toMatch(/^ {2}to run 64 tokens +~\S+ kB {2}12\.3 kB of them keys and values$/m);
    expect(stdout).toMatch(/^ {2}to train on 64 tokens +~\S+ kB {2}an estimate: token rows, all else frozen$/m);
  });

  test("leaves out buffers that some checkpoints store", async () => {
    const named = join(folder.path, "gpt2");
    const config = { model_type: "gpt2", vocab_size: 11, n_embd: 4, n_layer: 1, n_head: 1, n_positions: 3 };
    const files = new Map<string, Uint8Array>();
    await AutoModelForCausalLM.fromConfig(config).savePretrained(files);
    const memory = await openSafetensors(memorySource("gpt2", files.get("model.safetensors")!));
    const tensors: [string, StoredTensor][] = [];
    for (const name of memory.tensors.keys()) tensors.push([name.replace("transformer.", ""), await memory.read(name)]);
    const mask = { dtype: "F32" as const, shape: [1, 1, 3, 3], bytes: new Uint8Array(36) };
    await writeFolder(
      named,
      new Map<string, FileContent>([
        ["config.json", JSON.stringify(config)],
        ["model.safetensors", writeSafetensors([...tensors, ["h.0.attn.bias", mask]])],
      ]),
    );
    const { stdout } = await neolog(["inspect", named]);
    expect(stdout).toMatch(/^ {2}│ {2}├─ attn +Gpt2Attention +80$/m);
    expect(stdout).not.toContain("[1, 1, 3, 3]");
  });

  test.each([80, 120])("no line is wider than %d columns", async (columns) => {
    for (const dir of [model, adapter]) {
      const { stdout } = await neolog(["inspect", dir], { tty: true, columns });
      for (const line of stdout.split("\n")) expect(line.length, line).toBeLessThanOrEqual(columns);
    }
  });

  test("tells programs the same: memory, dtypes and the tree", async () => {
    const found = await inspected(model);
    expect(found).toMatchObject({
      dtypes: { F32: 4 * 6464 },
      problem: null,
      memory: { context: 1024, load: 4 * 6464, cache: 4 * 1024 * 2 * 8 },
      tree: { kind: "LlamaForCausalLM", parameters: 6464, children: [{ name: "model", kind: "LlamaModel" }] },
    });
  });

  test("finds a module by the name that files have for it", async () => {
    const config = {
      model_type: "gpt_neox",
      vocab_size: 8,
      hidden_size: 8,
      intermediate_size: 8,
      num_hidden_layers: 1,
      num_attention_heads: 1,
      max_position_embeddings: 8,
    };
    const dir = join(folder.path, "neox");
    await AutoModelForCausalLM.fromConfig(config).savePretrained(dir);
    expect((await neolog(["inspect", dir])).stdout).toMatch(/ embed_out +Linear +\[8, 8\]/);
  });

  test("shows by its names what it cannot run", async () => {
    const other = join(folder.path, "mamba");
    await cp(model, other, { recursive: true });
    await writeFile(join(other, "config.json"), JSON.stringify({ model_type: "mamba", vocab_size: 257 }));
    const { code, stdout } = await neolog(["inspect", other]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^ {2}note +this program cannot run it: .*must be one of .*found "mamba"$/m);
    expect(stdout).toMatch(/^ {2}│ {2}├─ embed_tokens|^ {2}.*embed_tokens +\[257, 16\] {2}F32 +4,112$/m);
    expect(stdout).not.toContain("to train");
  });

  test("shows an adapter, its rows by token, and what share of the base trains", async () => {
    const found = await inspected(adapter);
    const file = await openSafetensors(await (await openFolder(adapter)).open("adapter_model.safetensors"));
    const rows = toTypedArray(await file.read("base_model.model.model.embed_tokens.trainable_tokens_delta"));
    await file.close();
    const norm = (row: number): unknown =>
      expect.closeTo(Math.hypot(...Array.from(rows.slice(16 * row, 16 * row + 16), Number)), 10);
    expect(found).toMatchObject({
      kind: "adapter",
      dir: adapter,
      config: { peft_type: "TRAINABLE_TOKENS", token_indices: [257, 258] },
      rows: [
        { id: 257, token: "wug", norm: norm(0) },
        { id: 258, token: "dax", norm: norm(1) },
      ],
      trainable: 32,
      all: 6464 + 32,
    });
    const { stdout } = await neolog(["inspect", adapter]);
    expect(stdout).toMatch(/^ {2}257 {2}\d\.\d{3} {2}wug$/m);
    expect(stdout).toMatch(/\ntrainable params: 32 \|\| all params: 6,496 \|\| trainable%: 0.4926\n$/);
  });

  test("does not need the base of an adapter", async () => {
    await using other = await temporaryFolder();
    const base = await writeTinyModel(join(other.path, "model"));
    const out = join(other.path, "adapter");
    const data = join(folder.path, "data.jsonl");
    await neolog(["train", ...flags({ model: base, data, "token-indices": "5", steps: 1, out })]);
    await rm(base, { recursive: true });
    expect(await inspected(out)).toMatchObject({ rows: [{ id: 5, token: null }], trainable: 16, all: null });
    expect((await neolog(["inspect", out])).stdout).toContain(
      "trainable params: 16 || all params: ? || trainable%: ?\n",
    );
  });

  test("wants a model or an adapter", async () => {
    const { code, stderr } = await neolog(["inspect", folder.path]);
    expect(code).toBe(1);
    expect(stderr).toBe(
      `error: ${folder.path}: must hold config.json (a model) or adapter_config.json (an adapter), found neither\n`,
    );
  });
});
