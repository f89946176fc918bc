import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CheckpointError, type StoredTensor, openFolder, readBytes, writeSafetensors } from "@neolog/checkpoint";
import { StateDictError, stateDict } from "@neolog/nn";
import { Scope, defaultBackend, openBackend, setDefaultBackend } from "@neolog/tensor";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { AutoModelForCausalLM } from "./autoModel.ts";
import { ModelConfigError } from "./config.ts";
import { ARCHITECTURES } from "./registry.ts";
import { TINY_GPT2, TINY_LLAMA, readObject, readTensors, realData, worstExcess } from "./testing.ts";

const { fromConfig, fromPretrained } = AutoModelForCausalLM;
const TYPES = Object.keys(ARCHITECTURES).join(", ");
let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "neolog-"));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

const file = (name: string): string => join(dir, name);
const rewriteConfig = (config: object): Promise<void> => writeFile(file("config.json"), JSON.stringify(config));

/** An F32 tensor as files hold it. */
const stored = (shape: readonly number[], fill: number) => ({
  dtype: "F32" as const,
  shape,
  bytes: new Uint8Array(new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(fill).buffer),
});

/** Tensors as a file holds them in F32. */
const float32 = (
  tensors: Iterable<readonly [string, { readonly shape: readonly number[]; readonly data: ArrayLike<number> }]>,
) =>
  [...tensors].map(
    ([name, { shape, data }]) =>
      [name, { dtype: "F32" as const, shape, bytes: new Uint8Array(Float32Array.from(data).buffer) }] as const,
  );

describe("saving and loading", () => {
  test("a model comes back as it was, and saving it again writes the same bytes", async () => {
    const model = fromConfig(TINY_LLAMA, { seed: 1 });
    await model.savePretrained(dir);
    const again = await fromPretrained(dir);
    for (const [key, t] of stateDict(again)) expect(t.dataSync(), key).toEqual(stateDict(model).get(key)!.dataSync());
    const files = new Map<string, Uint8Array>();
    await again.savePretrained(files);
    expect([...files.keys()]).toEqual(["model.safetensors", "config.json"]);
    for (const [name, bytes] of files) expect(Buffer.from(bytes), name).toEqual(await readFile(file(name)));
  });

  test("keys that we do not know stay in config.json", async () => {
    await fromConfig({ ...TINY_LLAMA, _my_note: { kept: [1, 2.5] } }).savePretrained(dir);
    expect((await fromPretrained(dir)).config["_my_note"]).toEqual({ kept: [1, 2.5] });
  });

  test("what is too large for one file goes into shards, and back", async () => {
    const model = fromConfig(TINY_LLAMA, { seed: 1 });
    await model.savePretrained(dir);
    await model.savePretrained(dir, { maxShardSize: "3KB" });
    const shards = (await readdir(dir)).filter((name) => name.includes("-of-")).toSorted();
    expect(shards.length).toBeGreaterThan(2);
    const of = String(shards.length).padStart(5, "0");
    expect(shards).toEqual(shards.map((_, i) => `model-${String(i + 1).padStart(5, "0")}-of-${of}.safetensors`));
    expect((await readdir(dir)).toSorted()).toEqual(["config.json", ...shards, "model.safetensors.index.json"]);
    const again = await fromPretrained(dir);
    for (const [key, t] of stateDict(again)) expect(t.dataSync(), key).toEqual(stateDict(model).get(key)!.dataSync());
    await again.savePretrained(dir);
    expect((await readdir(dir)).toSorted()).toEqual(["config.json", "model.safetensors"]);
    await expect(again.savePretrained(dir, { maxShardSize: "5 apples" })).rejects.toThrow(
      'maxShardSize: must be a number of bytes or a text such as "500MB" or "5GB", got 5 apples',
    );
  });

  test("a model of the Hugging Face cache is found by its name and revision", async () => {
    const commit = "0123456789abcdef0123456789abcdef01234567";
    const repository = join(dir, "models--org--tiny");
    await fromConfig(TINY_LLAMA, { seed: 1 }).savePretrained(join(repository, "snapshots", commit));
    await mkdir(join(repository, "refs"), { recursive: true });
    await writeFile(join(repository, "refs", "v1"), commit);
    vi.stubEnv("HF_HUB_CACHE", dir);
    try {
      expect((await fromPretrained("org/tiny", { revision: "v1" })).config.model_type).toBe("llama");
      await expect(fromPretrained("org/tiny")).rejects.toThrow('"neolog download org/tiny" fetches it');
    } finally {
      vi.unstubAllEnvs();
    }
  });

  test("nothing but the model's files lies in the folder", async () => {
    await fromConfig(TINY_GPT2).savePretrained(dir);
    expect((await readdir(dir)).toSorted()).toEqual(["config.json", "model.safetensors"]);
  });

  test("a dtype that was asked for is what weights and config have", async () => {
    await fromConfig(TINY_LLAMA, { seed: 1 }).savePretrained(dir);
    const half = await fromPretrained(dir, { dtype: "bfloat16" });
    expect(new Set(half.parameters().map((p) => p.dtype))).toEqual(new Set(["bfloat16"]));
    expect(half.config["dtype"]).toBe("bfloat16");
    expect(half.forward({ input_ids: [[1, 2]] }).logits.dtype).toBe("float32");
    await half.savePretrained(dir);
    expect((await fromPretrained(dir)).parameters()[0]!.dtype).toBe("bfloat16");
  });

  test("progress counts the tensors", async () => {
    await fromConfig(TINY_GPT2).savePretrained(dir);
    const seen: number[][] = [];
    const model = await fromPretrained(dir, { onProgress: (...counts) => seen.push(counts) });
    const sizes = seen.map(([, , bytes]) => bytes!);
    const [total, totalBytes] = [model.parameters().length, model.parameters().reduce((sum, t) => sum + 4 * t.size, 0)];
    expect(seen).toEqual(sizes.map((bytes, i) => [i + 1, total, bytes, totalBytes]));
    expect(sizes).toEqual([...new Set(sizes)].toSorted((a, b) => a - b));
    expect(sizes.at(-1)).toBe(totalBytes);
  });

  test("a model outlives the scope in which it was loaded", async () => {
    await fromConfig(TINY_GPT2).savePretrained(dir);
    const scope = new Scope();
    const model = await fromPretrained(dir);
    scope[Symbol.dispose]();
    expect(model.forward({ input_ids: [[1]] }).logits.shape).toEqual([1, 1, 23]);
  });

  test.each([
    ["gpt2", TINY_GPT2, "transformer.", "h.0.attn.masked_bias"],
    ["llama", TINY_LLAMA, "model.", "layers.0.self_attn.rotary_emb.inv_freq"],
  ])("%s: keys without the base model's prefix and known buffers are taken", async (_, config, prefix, buffer) => {
    const model = fromConfig(config, { seed: 1 });
    await model.savePretrained(dir);
    const tensors = [...(await readTensors(dir, "model.safetensors"))].map(
      ([name, { shape, data }]) =>
        [
          name.startsWith(prefix) ? name.slice(prefix.length) : name,
          { dtype: "F32", shape, bytes: new Uint8Array(Float32Array.from(data).buffer) },
        ] as const,
    );
    await writeFile(file("model.safetensors"), writeSafetensors([...tensors, [buffer, stored([1], 0)]]));
    const again = stateDict(await fromPretrained(dir));
    for (const [key, t] of stateDict(model)) expect(again.get(key)!.dataSync(), key).toEqual(t.dataSync());
  });

  test("a tied head that the checkpoint stores besides is taken when it is equal, refused when not", async () => {
    await fromConfig({ ...TINY_LLAMA, tie_word_embeddings: true }, { seed: 1 }).savePretrained(dir);
    const tensors = await readTensors(dir, "model.safetensors");
    const write = (head: ArrayLike<number>): Promise<void> =>
      writeFile(
        file("model.safetensors"),
        writeSafetensors(float32([...tensors, ["lm_head.weight", { shape: [23, 12], data: head }]])),
      );
    const table = tensors.get("model.embed_tokens.weight")!.data;
    await write(table);
    expect(stateDict(await fromPretrained(dir)).has("lm_head.weight")).toBe(false);
    const both = await readTensors(dir, "model.safetensors");
    both.delete("model.embed_tokens.weight");
    await writeFile(file("model.safetensors"), writeSafetensors(float32(both)));
    const named = stateDict(await fromPretrained(dir)).get("model.embed_tokens.weight")!;
    expect(named.dataSync(), "a table that is stored as the head").toEqual(table);
    await write(Array.from(table, (x) => x + 1));
    await expect(fromPretrained(dir)).rejects.toMatchObject({
      name: "CheckpointError",
      code: "TIED_DISAGREE",
      message: expect.stringContaining('"lm_head.weight" must equal "model.embed_tokens.weight"') as string,
    });
  });
});

test("loading allocates what the checkpoint holds, nothing before or beside it", async () => {
  await fromConfig(TINY_GPT2, { seed: 1 }).savePretrained(dir);
  const before = defaultBackend();
  const backend = await openBackend("cpu");
  setDefaultBackend(backend);
  try {
    const model = await fromPretrained(dir, { dtype: "float32" });
    const weights = [...stateDict(model).values()].reduce((bytes, t) => bytes + 4 * t.size, 0);
    expect(backend.bytes).toEqual({ live: weights, peak: weights });
    for (const t of model.parameters()) expect(t.backend).toBe(backend);
  } finally {
    setDefaultBackend(before);
  }
});

describe("what cannot be loaded says why in one line", () => {
  beforeEach(() => fromConfig(TINY_LLAMA).savePretrained(dir));

  test.each<[string, () => Promise<unknown>, new (...args: never[]) => Error, string]>([
    ["no folder", () => rm(dir, { recursive: true }), CheckpointError, "must be a folder"],
    ["no config", () => rm(file("config.json")), CheckpointError, "must hold config.json, found none"],
    ["no weights", () => rm(file("model.safetensors")), CheckpointError, "must hold model.safetensors"],
    ["a config that is no JSON", () => writeFile(file("config.json"), "{"), CheckpointError, "must be JSON"],
    [
      "no model_type",
      () => rewriteConfig({ vocab_size: 3 }),
      ModelConfigError,
      `config.json: "model_type": must be one of ${TYPES}, found none`,
    ],
    [
      "an unknown model_type",
      () => rewriteConfig({ ...TINY_LLAMA, model_type: "mamba" }),
      ModelConfigError,
      `config.json: "model_type": must be one of ${TYPES}, found "mamba"`,
    ],
    [
      "other sizes",
      () => rewriteConfig({ ...TINY_LLAMA, vocab_size: 24 }),
      StateDictError,
      "2 misshapen (model.embed_tokens.weight: [24, 12] expected, [23, 12] found, lm_head.weight:",
    ],
    [
      "more layers",
      () => rewriteConfig({ ...TINY_LLAMA, num_hidden_layers: 3 }),
      StateDictError,
      "9 missing (model.layers.2.",
    ],
    [
      "other tensors",
      () => writeFile(file("model.safetensors"), writeSafetensors([["x", stored([2], 0)]])),
      StateDictError,
      "21 missing (model.embed_tokens.weight, ",
    ],
    [
      "weights that are no floats",
      async () => {
        const tensors = new Map(float32(await readTensors(dir, "model.safetensors")));
        const norm = tensors.get("model.norm.weight")!;
        const packed = new Map<string, StoredTensor>(tensors).set("model.norm.weight", { ...norm, dtype: "I32" });
        await writeFile(file("model.safetensors"), writeSafetensors(packed));
      },
      CheckpointError,
      '"model.norm.weight": a weight must be F64, F32, BF16 or F16, found I32; a quantized checkpoint',
    ],
    [
      "a tensor under two names",
      async () => {
        const tensors = float32(await readTensors(dir, "model.safetensors"));
        const norm = tensors.find(([name]) => name === "model.norm.weight")!;
        await writeFile(file("model.safetensors"), writeSafetensors([...tensors, ["norm.weight", norm[1]]]));
      },
      CheckpointError,
      '"model.norm.weight" must be stored once, found "',
    ],
    [
      "truncated weights",
      async () => writeFile(file("model.safetensors"), (await readFile(file("model.safetensors"))).subarray(0, -9)),
      CheckpointError,
      "model.safetensors",
    ],
    [
      "a broken generation_config.json",
      () => writeFile(file("generation_config.json"), '{"eos_token_id": "two"}'),
      ModelConfigError,
      'generation_config.json: "eos_token_id": must be ',
    ],
  ])("%s", async (_, spoil, kind, message) => {
    await spoil();
    const live = defaultBackend().live;
    const error = (await fromPretrained(dir).catch((e: unknown) => e)) as Error;
    expect(error).toBeInstanceOf(kind);
    expect(error.message).toContain(message);
    expect(error.message).toContain(dir);
    expect(error.message).not.toContain("\n");
    expect(defaultBackend().live).toBe(live);
  });

  test("missing, unexpected and misshapen keys come in one error", async () => {
    const tensors = new Map(
      [...(await readTensors(dir, "model.safetensors"))].map(([k, t]) => [k, stored(t.shape, 0)]),
    );
    tensors.delete("lm_head.weight");
    tensors.set("model.norm.weight", stored([3], 0)).set("extra", stored([1], 0));
    await writeFile(file("model.safetensors"), writeSafetensors(tensors));
    await expect(fromPretrained(dir)).rejects.toMatchObject({
      missing: ["lm_head.weight"],
      unexpected: ["extra"],
      misshapen: ["model.norm.weight: [12] expected, [3] found"],
    });
  });

  test("a folder cannot be saved over a file", async () => {
    await expect(fromConfig(TINY_GPT2).savePretrained(file("config.json"))).rejects.toMatchObject({ code: "IS_FILE" });
    expect((await fromPretrained(dir)).config.model_type).toBe("llama");
  });
});

const stories = realData("stories260K");

describe.skipIf(!stories)("stories260K", () => {
  interface Case {
    readonly prompt_ids: number[];
    readonly greedy_ids: number[];
  }

  test("continues prompts and scores them as transformers does", async () => {
    const model = await fromPretrained(stories!);
    const { cases } = await readObject<{ cases: readonly Case[] }>(stories!, "golden.json");
    const expected = await readTensors(stories!, "golden.safetensors");
    for (const [i, { prompt_ids, greedy_ids }] of cases.entries()) {
      const ids = await model.generate({ input_ids: [prompt_ids], max_new_tokens: 100 });
      expect(ids).toEqual([greedy_ids]);
      using _scope = new Scope();
      const { logits, hidden_states } = model.forward({ input_ids: ids, output_hidden_states: true });
      const close = (actual: ArrayLike<number>, name: string): number =>
        worstExcess(actual, expected.get(`${name}.${i}`)!.data, { atol: 1e-4, rtol: 1e-5 });
      expect(close(logits.dataSync(), "logits")).toBeLessThanOrEqual(0);
      expect(close(hidden_states!.at(-1)!.dataSync(), "final_hidden")).toBeLessThanOrEqual(0);
    }
  });

  test("is saved byte for byte", async () => {
    await (await fromPretrained(stories!)).savePretrained(dir);
    const source = await openFolder(stories!);
    for (const name of ["model.safetensors", "generation_config.json"]) {
      expect(await readFile(file(name)), name).toEqual(Buffer.from(await readBytes(source, name)));
    }
  });
});
