import { openFolder, openSafetensors, writeSafetensors } from "@neolog/checkpoint";
import { AutoTokenizer } from "@neolog/models";
import { cp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  type Ran,
  contentsOf,
  filesOf,
  flags,
  neolog,
  temporaryFolder,
  writeLines,
  writeTinyModel,
} from "./testing.ts";

const INPUTS = { input_ids: [[1, 257, 3, 119, 120, 258]], labels: [[1, 257, 3, 119, 120, 258]] };

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
const at = (name: string): string => join(folder.path, name);

beforeAll(async () => {
  folder = await temporaryFolder();
  await writeLines(at("data.jsonl"), [{ text: "the wug says dax" }]);
  await writeFile(at("inputs.json"), JSON.stringify(INPUTS));
});
afterAll(() => folder[Symbol.asyncDispose]());

/** A model with an adapter of two new rows, trained; → their folders. */
async function adapted(tied: boolean): Promise<{ model: string; adapter: string }> {
  const name = tied ? "tied" : "untied";
  const model = await writeTinyModel(at(name), { tied });
  const adapter = at(`${name}-adapter`);
  const { code } = await neolog([
    "train",
    ...flags({ model, data: at("data.jsonl"), tokens: "wug,dax", steps: 5, lr: 0.1, out: adapter }),
  ]);
  expect(code).toBe(0);
  return { model, adapter };
}

const merge = (options: Parameters<typeof flags>[0]): Promise<Ran> => neolog(["merge", ...flags(options)]);

async function logits(options: Parameters<typeof flags>[0]): Promise<Buffer> {
  const out = at("logits.safetensors");
  const { code } = await neolog(["forward", ...flags({ ...options, input: at("inputs.json"), out })]);
  expect(code).toBe(0);
  return readFile(out);
}

describe("neolog merge", () => {
  test.each(["cpu", "gpu:webasm"])("writes the same bytes on %s", async (backend) => {
    const { model, adapter } = await adapted(true);
    const [out, same] = [at(`merged-${backend.replace(":", "-")}`), at("merged-by-default")];
    for (const options of [{ out, backend }, { out: same }])
      expect((await merge({ model, adapter, ...options })).code).toBe(0);
    expect(await contentsOf(out)).toEqual(await contentsOf(same));
  });

  test.each([true, false])("writes a plain model with equal logits, tied %j", async (tied) => {
    const { model, adapter } = await adapted(tied);
    const out = at(`merged-${tied}`);
    const { code, stdout } = await merge({ model, adapter, out, json: true });
    expect(code).toBe(0);
    const files = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
    expect(JSON.parse(stdout)).toEqual({ out, token_indices: [257, 258], vocab_size: 259, files });
    expect(await filesOf(out)).toEqual(files);
    expect((await logits({ model: out })).equals(await logits({ model, adapter }))).toBe(true);
    expect((await AutoTokenizer.fromPretrained(out)).encode("wugdax")).toEqual([257, 258]);
  });

  test("rows that are no numbers are refused, nothing is written", async () => {
    const { model, adapter } = await adapted(true);
    const broken = at("broken");
    await cp(adapter, broken, { recursive: true });
    const file = await openSafetensors(await (await openFolder(adapter)).open("adapter_model.safetensors"));
    const rows = await Promise.all(
      [...file.tensors.keys()].map(async (name) => {
        const stored = await file.read(name);
        const bytes = stored.bytes.slice();
        new DataView(bytes.buffer).setFloat32(0, NaN, true);
        return [name, { ...stored, bytes }] as const;
      }),
    );
    await file.close();
    await writeFile(join(broken, "adapter_model.safetensors"), writeSafetensors(rows));
    for (const options of [{}, { "safe-merge": true } as const]) {
      const { code, stdout, stderr } = await merge({ model, adapter: broken, out: at("unsafe"), ...options });
      expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
      expect(stderr).toMatch(/^error: .*trainable_tokens_delta must be finite, found NaN or infinity at element 0\n$/);
      await expect(filesOf(at("unsafe"))).rejects.toThrow("ENOENT");
    }
  });

  test("--safe-merge merges what is sound", async () => {
    const { model, adapter } = await adapted(true);
    expect((await merge({ model, adapter, out: at("safe"), "safe-merge": true })).code).toBe(0);
    expect((await logits({ model: at("safe") })).equals(await logits({ model, adapter }))).toBe(true);
  });

  test.each(["model", "adapter"] as const)("does not write over the %s", async (which) => {
    const folders = await adapted(true);
    const before = await contentsOf(folder.path);
    const { code, stderr } = await merge({ ...folders, out: folders[which] });
    expect(code).toBe(1);
    expect(stderr).toContain("must be another folder than those read");
    expect(await contentsOf(folder.path)).toEqual(before);
  });

  test("tells people how many rows", async () => {
    const { model, adapter } = await adapted(true);
    expect((await merge({ model, adapter, out: at("told") })).stdout).toBe(
      `merged 2 rows of ${adapter} into ${at("told")} (259 rows)\n`,
    );
  });

  test("merges several adapters at once, into what they give together", async () => {
    const { model, adapter } = await adapted(true);
    const rows = at("rows");
    const data = at("data.jsonl");
    expect(
      (await neolog(["train", ...flags({ model, data, "token-indices": "120,3", steps: 2, lr: 0.1, out: rows })])).code,
    ).toBe(0);
    const both = ["merge", ...flags({ model, adapter, out: at("both"), json: true }), "--adapter", rows];
    const { code, stdout } = await neolog(both);
    expect(code).toBe(0);
    expect(JSON.parse(stdout).token_indices).toEqual([257, 258, 120, 3]);
    const one = at("one-after-the-other");
    expect((await merge({ model, adapter, out: one })).code).toBe(0);
    expect((await merge({ model: one, adapter: rows, out: at("then-rows") })).code).toBe(0);
    expect((await logits({ model: at("both") })).equals(await logits({ model: at("then-rows") }))).toBe(true);
  });

  test("refuses adapters that share a token, and tokens that differ, before anything is written", async () => {
    const { model, adapter } = await adapted(true);
    const data = at("data.jsonl");
    const train = async (out: string, tokens: string): Promise<string> => {
      expect((await neolog(["train", ...flags({ model, data, tokens, steps: 1, out: at(out) })])).code).toBe(0);
      return at(out);
    };
    const same = await train("same", "wug");
    const other = await train("other", "blick");
    for (const [second, says] of [
      [same, /tied-adapter and same sharing 257 on /],
      [other, /other: its token 257 must be the one of the other adapters, got "blick" and "wug"; train them with/],
    ] as const) {
      const before = await contentsOf(folder.path);
      const { code, stderr } = await neolog([
        "merge",
        ...flags({ model, adapter, out: at("refused") }),
        "--adapter",
        second,
      ]);
      expect(code).toBe(1);
      expect(stderr).toMatch(/^error: [^\n]*\n$/);
      expect(stderr).toMatch(says);
      expect(await contentsOf(folder.path)).toEqual(before);
    }
  });

  test("--untie gives the head its own table where rows hold for the head alone", async () => {
    const { model, adapter } = await adapted(true);
    const head = at("head");
    await cp(adapter, head, { recursive: true });
    const config = join(head, "adapter_config.json");
    const json = JSON.parse(await readFile(config, "utf8"));
    await writeFile(config, JSON.stringify({ ...json, target_modules: ["lm_head"] }));
    const file = await openSafetensors(await (await openFolder(adapter)).open("adapter_model.safetensors"));
    const name = [...file.tensors.keys()].find((key) => key.includes("lm_head"))!;
    await writeFile(join(head, "adapter_model.safetensors"), writeSafetensors([[name, await file.read(name)]]));
    await file.close();
    const refused = await merge({ model, adapter: head, out: at("untied-out") });
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain("untie: true gives lm_head its own");
    const ran = await merge({ model, adapter: head, out: at("untied-out"), untie: true });
    expect(ran.stderr).toContain("lm_head has its own table now");
    expect(JSON.parse(await readFile(join(at("untied-out"), "config.json"), "utf8")).tie_word_embeddings).toBe(false);
    expect((await logits({ model: at("untied-out") })).equals(await logits({ model, adapter: head }))).toBe(true);
  });
});
