import { openFolder, openSafetensors, toTypedArray } from "@neolog/checkpoint";
import { rm } from "node:fs/promises";
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
    expect(stdout).toContain("  model_type  llama\n");
    expect(stdout).toMatch(/^ {2}model.embed_tokens.weight +F32 {2}\[257, 16\]$/m);
    expect(stdout).toMatch(/\ntrainable params: 0 \|\| all params: 6,464 \|\| trainable%: 0.0000\n$/);
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
