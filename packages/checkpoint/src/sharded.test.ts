import { describe, expect, test } from "vitest";
import { openFolder } from "./folder.ts";
import { openCheckpoint } from "./sharded.ts";
import type { StoredTensor } from "./storedDtype.ts";
import { writeSafetensors } from "./writeSafetensors.ts";

const row = (...values: number[]): StoredTensor => ({
  dtype: "F32",
  shape: [values.length],
  bytes: new Uint8Array(Float32Array.from(values).buffer),
});
const index = (weight_map: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify({ weight_map }));
const one = "model-00001-of-00002.safetensors";
const two = "model-00002-of-00002.safetensors";
const shards = [
  [
    one,
    writeSafetensors([
      ["wte.weight", row(1, 2)],
      ["wpe.weight", row(0)],
    ]),
  ],
  [two, writeSafetensors([["ln_f.weight", row(3)]])],
] as const;
const open = async (...files: (readonly [string, Uint8Array])[]) => openCheckpoint(await openFolder(new Map(files)));
const withIndex = (weight_map: unknown) => open(["model.safetensors.index.json", index(weight_map)], ...shards);

describe("openCheckpoint", () => {
  test("one file", async () => {
    const checkpoint = await open(["model.safetensors", shards[0][1]]);
    expect(checkpoint.names()).toEqual(["wpe.weight", "wte.weight"]);
    expect(checkpoint.info("wte.weight")).toMatchObject({ dtype: "F32", shape: [2], byteLength: 8 });
    expect(await checkpoint.read("wte.weight")).toEqual(row(1, 2));
    await checkpoint.close();
  });

  test("shards, by their index", async () => {
    const checkpoint = await withIndex({ "ln_f.weight": two, "wte.weight": one, "wpe.weight": one });
    expect(checkpoint.names()).toEqual(["ln_f.weight", "wte.weight", "wpe.weight"]);
    expect(await checkpoint.read("ln_f.weight")).toEqual(row(3));
    expect(await checkpoint.read("wte.weight")).toEqual(row(1, 2));
    expect(() => checkpoint.info("h")).toThrow('files in memory: must hold tensor "h", found none');
    await expect(checkpoint.read("lm_head.weight")).rejects.toMatchObject({ code: "MISSING" });
  });

  test.each<[string, unknown, string, string]>([
    [
      "a tensor that its shard lacks",
      { "lm_head.weight": two },
      "MISSING",
      `${two}: must hold tensor "lm_head.weight"`,
    ],
    [
      "too few tensors",
      { "ln_f.weight": two, "wte.weight": one },
      "UNEXPECTED",
      `files in memory: model.safetensors.index.json must list every tensor of its shards, found "wpe.weight" in ${one} besides`,
    ],
    ["a missing shard", { a: "model-3.safetensors" }, "NOT_FOUND", "must hold model-3.safetensors, found none"],
    ["a path", { a: `../${one}` }, "CORRUPT", `weight_map must name a file of the folder for "a", got "../${one}"`],
    ["a Windows path", { a: `..\\${one}` }, "CORRUPT", "weight_map must name a file of the folder"],
    ["the folder above", { a: ".." }, "CORRUPT", "weight_map must name a file of the folder"],
    ["a number", { a: 1 }, "CORRUPT", 'weight_map must name a file of the folder for "a", got 1'],
    ["no map", undefined, "CORRUPT", "weight_map must be an object of file names, got undefined"],
  ])("an index with %s", async (_, weightMap, code, message) => {
    await expect(withIndex(weightMap)).rejects.toMatchObject({ code, message: expect.stringContaining(message) });
  });

  test("a tensor in two shards", async () => {
    const both = { "wte.weight": one, "wpe.weight": one };
    await expect(
      open(["model.safetensors.index.json", index({ ...both, "ln_f.weight": two })], shards[0], [
        two,
        writeSafetensors([
          ["ln_f.weight", row(3)],
          ["wpe.weight", row(0)],
        ]),
      ]),
    ).rejects.toMatchObject({
      code: "UNEXPECTED",
      message: `files in memory: a tensor must be in one shard, found "wpe.weight" in ${one} and ${two}`,
    });
  });

  test("closes the shards it opened when another is bad", async () => {
    let open = 0;
    const folder = await openFolder(
      new Map([
        ["model.safetensors.index.json", index({ "wte.weight": one, b: "bad" })],
        ...shards,
        ["bad", new Uint8Array(9)],
      ]),
    );
    const counting = {
      ...folder,
      async open(file: string) {
        const source = await folder.open(file);
        open++;
        return { ...source, close: async () => void open-- };
      },
    };
    await expect(openCheckpoint(counting)).rejects.toMatchObject({ code: "CORRUPT" });
    expect(open).toBe(0);
  });

  test("a pickle is refused with the way out, nothing at all is named", async () => {
    const message = /found pytorch_model\.bin; .*model\.save_pretrained\(dir\)/;
    await expect(open(["pytorch_model.bin", new Uint8Array(1)])).rejects.toMatchObject({
      code: "PICKLE",
      message: expect.stringMatching(message),
    });
    await expect(open()).rejects.toMatchObject({
      code: "NOT_FOUND",
      message: "files in memory: must hold model.safetensors or model.safetensors.index.json, found neither",
    });
  });
});
