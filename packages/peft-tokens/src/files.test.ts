import { writeSafetensors, type StoredTensor } from "@neolog/checkpoint";
import { AutoModelForCausalLM, AutoTokenizer } from "@neolog/models";
import fc from "fast-check";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { type LoadOptions, PeftModel, TrainableTokensConfig, autoPeftModel, getPeftModel } from "./index.ts";
import { type BaseName, caught, isTied, listener, logitsOf, makeBase, setRows, valuesOf } from "./testing.ts";

/** What an adapter folder may hold and how it is read, row by row of our specification; nothing that fails changes the model. */
const NAMES: BaseName[] = ["llama", "llama tied", "gpt2", "gpt2 untied"];
const P = "base_model.model.";
const ROWS = ".trainable_tokens_delta";
const HIDDEN = 6;
const IDS = [7, 1];

const f32 = (rows: number, width: number, value = (i: number): number => i / 8): StoredTensor => ({
  dtype: "F32",
  shape: [rows, width],
  bytes: new Uint8Array(Float32Array.from({ length: rows * width }, (_, i) => value(i)).buffer),
});

describe.each(NAMES)("adapter files, %s", (name) => {
  const path = makeBase(name).embeddingPath;
  const key = P + path + ROWS;
  const good: Record<string, StoredTensor> = {
    [key]: f32(2, HIDDEN),
    ...(isTied(name) ? { [`${P}lm_head${ROWS}`]: f32(2, HIDDEN) } : {}),
  };
  const folder = (tensors: Record<string, StoredTensor> = good, json: object = {}): Map<string, Uint8Array> =>
    new Map([
      [
        "adapter_config.json",
        new TextEncoder().encode(JSON.stringify({ peft_type: "TRAINABLE_TOKENS", token_indices: IDS, ...json })),
      ],
      ["adapter_model.safetensors", writeSafetensors(new Map(Object.entries(tensors)))],
    ]);

  /** The error of a load that must leave flags, names and logits as they were. */
  async function refused(files: Map<string, Uint8Array>, options: LoadOptions = {}) {
    const base = makeBase(name);
    const before = valuesOf(base);
    for (const p of base.parameters()) p.requiresGrad = true;
    const error = await caught(() => PeftModel.fromPretrained(base, files, options));
    expect(valuesOf(base)).toEqual(before);
    expect(base.parameters().every((p) => p.requiresGrad)).toBe(true);
    expect(base.config.vocab_size).toBe(11);
    return error;
  }
  async function loaded(files: Map<string, Uint8Array>, options: LoadOptions = {}) {
    const { codes, onWarning } = listener();
    const peft = await PeftModel.fromPretrained(makeBase(name), files, { ...options, onWarning });
    const rows = peft.layers().get(path)!.trainable_tokens_delta["default"]!.dataSync();
    return { peft, codes, rows };
  }
  const expectedRows = Float32Array.from({ length: 2 * HIDDEN }, (_, i) => i / 8);

  test("a minimal config loads silently, with defaults", async () => {
    const { peft, codes, rows } = await loaded(folder());
    expect(codes).toEqual([]);
    expect(rows).toEqual(expectedRows);
    expect(peft.peftConfig["default"]).toMatchObject({ init_weights: true, task_type: null, revision: null });
  });

  test("the adapter's type must be there and known", async () => {
    expect(await refused(folder(good, { peft_type: undefined }))).toMatchObject({
      code: "PEFT_TYPE",
      message: expect.stringContaining("TRAINABLE_TOKENS"),
    });
    expect(await refused(folder(good, { peft_type: "IA3" }))).toMatchObject({
      code: "PEFT_TYPE",
      fields: { peft_type: "IA3" },
    });
  });

  test("unknown keys of the config are kept and written back, with a warning", async () => {
    const { peft, codes } = await loaded(folder(good, { runtime_config: { a: 1 }, zeal: 2 }));
    expect(codes).toEqual(["UNKNOWN_KEYS"]);
    const files = new Map<string, Uint8Array>();
    await peft.savePretrained(files);
    expect(JSON.parse(new TextDecoder().decode(files.get("adapter_config.json")))).toMatchObject({
      runtime_config: { a: 1 },
      zeal: 2,
    });
  });

  test("rows must be as many as the ids and as wide as the table, or are left out on request", async () => {
    for (const wrong of [f32(3, HIDDEN), f32(2, 5)]) {
      const files = folder({ [key]: wrong });
      expect(await refused(files)).toMatchObject({
        code: "SHAPE",
        fields: { key: path + ROWS, expected: [2, HIDDEN], found: wrong.shape, token_indices: IDS },
      });
      const { peft, codes } = await loaded(files, { ignoreMismatchedSizes: true });
      expect(codes).toEqual(["SKIPPED_TENSORS"]);
      expect(logitsOf(peft)).toEqual(logitsOf(makeBase(name)));
    }
  });

  test("of tied copies one is enough, and two must agree", async () => {
    if (!isTied(name)) {
      expect(await refused(folder({ ...good, [`${P}lm_head${ROWS}`]: f32(2, HIDDEN) }))).toMatchObject({
        code: "UNEXPECTED",
      });
      return;
    }
    for (const one of [key, `${P}lm_head${ROWS}`]) {
      const { codes, rows } = await loaded(folder({ [one]: f32(2, HIDDEN) }));
      expect([codes, rows]).toEqual([[], expectedRows]);
    }
    const different = f32(2, HIDDEN, (i) => (i === 9 ? 5 : i / 8));
    expect(await refused(folder({ ...good, [`${P}lm_head${ROWS}`]: different }))).toMatchObject({
      code: "TIED_DISAGREE",
      fields: { row: 1 },
    });
  });

  test("keys without the prefix are foreign until a mapping names them", async () => {
    const files = folder({ [`encoder.${path}${ROWS}`]: f32(2, HIDDEN) });
    const error = await refused(files);
    expect(error).toMatchObject({ code: "MISSING", fields: { missing: [key], found: [`encoder.${path}${ROWS}`] } });
    expect(error.message).toContain("keyMapping");
    const { rows, codes } = await loaded(files, { keyMapping: { nothing: "x", "^encoder\\.": "" } });
    expect([rows, codes]).toEqual([expectedRows, []]);
    expect(await refused(files, { keyMapping: { "(": "" } })).toMatchObject({ code: "REGEX" });
    const lenient = await loaded(files, { strict: false });
    expect(lenient.codes).toEqual(["SKIPPED_TENSORS", "SKIPPED_TENSORS"]);
    expect(logitsOf(lenient.peft)).toEqual(logitsOf(makeBase(name)));
  });

  test("a key may end with an adapter's name, if no other key says the same", async () => {
    const { rows, codes } = await loaded(folder({ [`${key}.any`]: f32(2, HIDDEN) }));
    expect([rows, codes]).toEqual([expectedRows, []]);
    const twice = folder({ [`${key}.a`]: f32(2, HIDDEN), [`${key}.b`]: f32(2, HIDDEN, () => 1) });
    expect(await refused(twice)).toMatchObject({
      code: "UNEXPECTED",
      message: expect.stringContaining("several keys"),
    });
  });

  test("extra tensors are errors, whole tables of other modules too; or reported", async () => {
    for (const extra of [`${P}lora_A.weight`, `${P}norm.base_layer.weight`, "stray"]) {
      const files = folder({ ...good, [extra]: f32(11, HIDDEN) });
      expect(await refused(files)).toMatchObject({ code: "UNEXPECTED", fields: { unexpected: [extra] } });
      const peft = getPeftModel(makeBase(name), new TrainableTokensConfig({ token_indices: [0] }), listener());
      const report = await peft.loadAdapter(files, "second", { strict: false });
      expect(report).toEqual({ missingKeys: [], unexpectedKeys: [extra], mismatchedKeys: [] });
    }
  });

  test("targets without a module are an error, or a warning where another matches", async () => {
    const files = folder(good, { target_modules: [path.split(".").at(-1), "word_embeddings"] });
    expect(await refused(files)).toMatchObject({ name: "TargetError", code: "NOT_FOUND" });
    const { codes, rows } = await loaded(files, { strict: false });
    expect([codes, rows]).toEqual([["TARGET_UNMATCHED"], expectedRows]);
    expect(await refused(folder(good, { target_modules: ["word_embeddings"] }), { strict: false })).toMatchObject({
      code: "NOT_FOUND",
    });
  });

  test("ids beyond the table are an error, or grow it first", async () => {
    const files = folder(good, { token_indices: [1, 13] });
    expect(await refused(files)).toMatchObject({ code: "INDEX_RANGE", fields: { rows: 11 } });
    const { peft, codes } = await loaded(files, { resize: true });
    expect(codes).toEqual(["TABLE_GROWN"]);
    expect(peft.getBaseModel().config.vocab_size).toBe(14);
    expect(
      await refused(folder(good, { token_indices: [1, 13] }), { resize: true, keyMapping: { ".*": "nowhere" } }),
    ).toMatchObject({ code: isTied(name) ? "UNEXPECTED" : "MISSING" });
  });

  test.each(["F64", "F16", "BF16"] as const)("%s rows are converted", async (dtype) => {
    const size = dtype === "F64" ? 8 : 2;
    const one =
      dtype === "F64"
        ? new Uint8Array(Float64Array.of(1.5).buffer)
        : new Uint8Array(Uint16Array.of(dtype === "F16" ? 0x3e00 : 0x3fc0).buffer);
    const bytes = Uint8Array.from({ length: 2 * HIDDEN * size }, (_, i) => one[i % size]!);
    const { rows } = await loaded(folder({ [key]: { dtype, shape: [2, HIDDEN], bytes } }));
    expect(Array.from(rows)).toEqual(Array.from({ length: 2 * HIDDEN }, () => 1.5));
  });

  test("integers, values that are not finite, and a pickle alone are refused", async () => {
    const ints: StoredTensor = { dtype: "I32", shape: [2, HIDDEN], bytes: new Uint8Array(2 * HIDDEN * 4) };
    expect(await refused(folder({ [key]: ints }))).toMatchObject({ code: "DTYPE" });
    for (const bad of [NaN, Infinity])
      expect(await refused(folder({ [key]: f32(2, HIDDEN, (i) => (i === 8 ? bad : 0)) }))).toMatchObject({
        code: "CORRUPT",
        fields: { at: 8 },
      });
    const pickled = folder();
    pickled.delete("adapter_model.safetensors");
    expect(await refused(pickled)).toMatchObject({ code: "NOT_FOUND" });
    expect(await refused(pickled.set("adapter_model.bin", new Uint8Array(8)))).toMatchObject({ code: "PICKLE" });
  });

  const whole = (rows: number, tables = isTied(name) ? [path, "lm_head"] : [path]) => ({
    ...good,
    ...Object.fromEntries(
      tables.map((module) => [`${P}${module}.base_layer.weight`, f32(rows, HIDDEN, (i) => Math.sin(i))]),
    ),
  });
  test("whole tables replace the base's, and other adapters' originals follow", async () => {
    const { codes, onWarning } = listener();
    const peft = getPeftModel(makeBase(name), new TrainableTokensConfig({ token_indices: [0] }), { onWarning });
    await peft.loadAdapter(folder(whole(11)), "second");
    expect(new Set(codes)).toEqual(new Set(["BASE_REPLACED"]));
    const layer = peft.layers().get(path)!;
    const table = Float32Array.from({ length: 66 }, (_, i) => Math.sin(i));
    expect(layer.table.dataSync()).toEqual(table);
    expect(layer.originalOf("default").dataSync()).toEqual(table.slice(0, HIDDEN));
    await peft.mergeAdapter();
    peft.unmergeAdapter();
    expect(layer.table.dataSync()).toEqual(table);
    await peft.mergeAdapter();
    expect(await caught(() => peft.loadAdapter(folder(whole(11)), "third"))).toMatchObject({
      code: "UNEXPECTED",
      message: expect.stringContaining("unmerge first"),
    });
  });

  test("whole tables of other sizes need resize, of integers or unequal on a tie never fit", async () => {
    expect(await refused(folder(whole(13)))).toMatchObject({
      code: "SHAPE",
      message: expect.stringContaining("resize: true"),
    });
    expect(await refused(folder(whole(9)), { resize: true })).toMatchObject({ code: "SHAPE" });
    const { peft } = await loaded(folder(whole(13)), { resize: true });
    expect(peft.layers().get(path)!.table.shape).toEqual([13, HIDDEN]);
    const ints: StoredTensor = { dtype: "I32", shape: [11, HIDDEN], bytes: new Uint8Array(11 * HIDDEN * 4) };
    expect(await refused(folder({ ...good, [`${P}${path}.base_layer.weight`]: ints }))).toMatchObject({
      code: "DTYPE",
    });
    if (isTied(name))
      expect(await refused(folder({ ...whole(11), [`${P}lm_head.base_layer.weight`]: f32(11, HIDDEN) }))).toMatchObject(
        { code: "TIED_DISAGREE" },
      );
  });

  test("A-29: whole tables are saved always, never, or where added rows would be lost; without what is merged", async () => {
    const base = makeBase(name);
    const table = Array.from(valuesOf(base).get(`${path}.weight`)!);
    const { codes, onWarning } = listener();
    const peft = getPeftModel(base, new TrainableTokensConfig({ token_indices: IDS }), { onWarning });
    setRows(peft, "default");
    await peft.mergeAdapter();
    const save = async (saveEmbeddingLayers: boolean | "auto") => {
      const files = new Map<string, Uint8Array>();
      await peft.savePretrained(files, { saveEmbeddingLayers });
      return files;
    };
    const [never, auto, always] = [await save(false), await save("auto"), await save(true)];
    expect(auto.get("adapter_model.safetensors")).toEqual(never.get("adapter_model.safetensors"));
    expect(codes).toEqual([]);
    const other = makeBase(name, 8);
    const again = await PeftModel.fromPretrained(other, always, listener());
    expect(Array.from(again.layers().get(path)!.table.dataSync())).toEqual(table);
  });
});

test("P-28: damaged bytes give typed errors and leave the model", async () => {
  const peft = getPeftModel(makeBase("llama tied"), new TrainableTokensConfig({ token_indices: IDS }));
  setRows(peft, "default");
  const files = new Map<string, Uint8Array>();
  await peft.savePretrained(files);
  const base = makeBase("llama tied");
  const before = valuesOf(base);
  const names = ["adapter_config.json", "adapter_model.safetensors"] as const;
  const damage = fc.record({
    file: fc.constantFrom(...names),
    at: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
    byte: fc.integer({ min: 0, max: 255 }),
    cut: fc.boolean(),
  });
  let refusals = 0;
  await fc.assert(
    fc.asyncProperty(damage, async ({ file, at, byte, cut }) => {
      const bytes = Uint8Array.from(files.get(file)!);
      const place = Math.floor(at * bytes.length);
      bytes[place] = byte;
      const broken = new Map([...files, [file, cut ? bytes.slice(0, place) : bytes]]);
      try {
        (await PeftModel.fromPretrained(base, broken, listener())).unload();
      } catch (error) {
        refusals++;
        expect(["CheckpointError", "ConfigError", "TargetError"]).toContain((error as Error).name);
      }
      expect(valuesOf(base)).toEqual(before);
    }),
    { numRuns: 600 },
  );
  expect(refusals).toBeGreaterThan(100);
});

describe("autoPeftModel", () => {
  const meadow = fileURLToPath(new URL("../../models/pretrained/meadow", import.meta.url));
  const folderOf = async (base_model_name_or_path: string | null) => {
    const base = await AutoModelForCausalLM.fromPretrained(meadow);
    const tokenizer = await AutoTokenizer.fromPretrained(meadow);
    const token_indices = tokenizer.addTokens([" wug", " dax"]);
    base.resizeTokenEmbeddings(tokenizer.vocabSize);
    const peft = getPeftModel(base, new TrainableTokensConfig({ token_indices, base_model_name_or_path }));
    setRows(peft, "default");
    const files = new Map<string, Uint8Array>();
    await peft.savePretrained(files);
    for (const [file, text] of tokenizer.files()) files.set(file, new TextEncoder().encode(text));
    return { peft, files };
  };
  const resolveBase = (path: string) => AutoModelForCausalLM.fromPretrained(path);

  test("loads the named base, grown to the tokenizer beside the adapter", async () => {
    const { peft, files } = await folderOf(meadow);
    const loaded = await autoPeftModel(files, { resolveBase, onWarning: ({ message }) => expect.fail(message) });
    expect(loaded.getBaseModel().config.vocab_size).toBe(691);
    expect(logitsOf(loaded, [[0, 689, 317, 690]])).toEqual(logitsOf(peft, [[0, 689, 317, 690]]));
  });
  test("needs a name", async () => {
    const { files } = await folderOf(null);
    expect(await caught(() => autoPeftModel(files, { resolveBase }))).toMatchObject({ code: "ARGUMENT" });
  });
});

test("there must be an adapter to save", async () => {
  const peft = getPeftModel(makeBase("llama"), new TrainableTokensConfig({ token_indices: IDS }));
  peft.deleteAdapter("default");
  expect(await caught(() => peft.savePretrained(new Map()))).toMatchObject({ code: "UNKNOWN" });
});
