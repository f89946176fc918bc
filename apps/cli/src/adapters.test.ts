import { mkdir, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { filesOf, flags, neolog, temporaryFolder, writeLines, writeTinyModel } from "./testing.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
const at = (name: string): string => join(folder.path, name);

/** runs/deep/b and runs/c train token 120, runs/a two new ones. */
beforeAll(async () => {
  folder = await temporaryFolder();
  const model = await writeTinyModel(at("model"));
  await writeLines(at("data.jsonl"), [{ text: "the wug says dax" }]);
  const train = (out: string, rows: object) =>
    neolog(["train", ...flags({ model, data: at("data.jsonl"), steps: 1, out: at(out), ...rows })]);
  expect((await train("runs/a", { tokens: "wug,dax" })).code).toBe(0);
  expect((await train("runs/deep/b", { "token-indices": "120,7" })).code).toBe(0);
  expect((await train("runs/c", { "token-indices": "120" })).code).toBe(0);
});
afterAll(() => folder[Symbol.asyncDispose]());

describe("neolog adapters", () => {
  test("lists every adapter below a folder, with tokens, and which exclude each other", async () => {
    const before = await filesOf(folder.path);
    const { code, stdout } = await neolog(["adapters", at("runs"), "--json"]);
    expect(code).toBe(0);
    const { adapters, conflicts } = JSON.parse(stdout);
    expect(adapters.map(({ path }: { path: string }) => path)).toEqual(["a", "c", "deep/b"]);
    expect(adapters[0]).toMatchObject({
      peft_type: "TRAINABLE_TOKENS",
      base: at("model"),
      r: null,
      error: null,
      bytes: 2 * 2 * 16 * 4,
      modules: [
        { name: "model.embed_tokens", ids: [257, 258], tokens: ["wug", "dax"] },
        { name: "lm_head", ids: [257, 258], tokens: ["wug", "dax"] },
      ].toSorted((x, y) => (x.name < y.name ? -1 : 1)),
    });
    expect(conflicts).toEqual(
      ["lm_head", "model.embed_tokens"].map((module) => ({ adapters: ["c", "deep/b"], module, ids: [120] })),
    );
    expect(await filesOf(folder.path)).toEqual(before);
  });

  test("tells people the same", async () => {
    const { stdout } = await neolog(["adapters", at("runs")]);
    const lines = stdout.trimEnd().split("\n");
    expect(lines[0]).toBe(`3 adapters in ${at("runs")}`);
    expect(lines[2]).toMatch(/^ {2}a +TRAINABLE_TOKENS +\S+ +2 +256 B {2}wug dax$/);
    expect(lines.at(-1)).toBe("c and deep/b share 120 on model.embed_tokens: not together");
  });

  test("an adapter that cannot be read is listed with the reason; the others too", async () => {
    await mkdir(at("runs/broken"));
    await writeFile(at("runs/broken/adapter_config.json"), '{"peft_type": "TRAINABLE_TOKENS"}');
    await writeFile(at("runs/broken/adapter_model.safetensors"), "x".repeat(40));
    await truncate(at("runs/broken/adapter_model.safetensors"), 30);
    const { code, stdout } = await neolog(["adapters", at("runs"), "--json"]);
    expect(code).toBe(0);
    const { adapters } = JSON.parse(stdout);
    expect(adapters).toHaveLength(4);
    expect(adapters[1]).toMatchObject({ path: "broken", error: expect.stringContaining("adapter_model.safetensors") });
    await rm(at("runs/broken"), { recursive: true });
  });

  test.each([
    ["nowhere", "must be a folder, found nothing"],
    ["model", "must hold adapter_config.json in it or in a folder below, found none"],
  ])("%s is one clear line", async (name, says) => {
    const { code, stdout, stderr } = await neolog(["adapters", at(name)]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toBe(`error: ${at(name)}: ${says}\n`);
  });
});
