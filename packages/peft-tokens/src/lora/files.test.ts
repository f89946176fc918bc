import { type StoredTensor, openFolder, openSafetensors, writeSafetensors } from "@neolog/checkpoint";
import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { type LoadOptions, LoraConfig, type LoraOptions, PeftModel, getPeftModel } from "../index.ts";
import { type BaseName, caught, isTied, listener, logitsOf, makeBase, setRows, valuesOf } from "../testing.ts";

/** How folders of LoRA with token rows are read, row by row of our specification; nothing that fails changes the model. */
const P = "base_model.model.";
const IDS = [7, 1];
const quiet = { onWarning: (): void => {} };

interface Form {
  readonly name: BaseName;
  readonly form: string;
  readonly target: string;
  readonly indices: (base: { embeddingPath: string; headPath: string }) => LoraOptions["trainable_token_indices"];
}
const short = (path: string): string => path.split(".").at(-1)!;
const list: Pick<Form, "form" | "indices"> = { form: "a list", indices: () => IDS };
const record: Pick<Form, "form" | "indices"> = {
  form: "a dictionary",
  indices: ({ embeddingPath, headPath }) => ({ [short(embeddingPath)]: IDS, [short(headPath)]: [2, 3, 8] }),
};
const FORMS: Form[] = [
  { name: "llama", target: "q_proj", ...list },
  { name: "llama tied", target: "q_proj", ...list },
  { name: "llama", target: "q_proj", ...record },
  { name: "llama tied", target: "q_proj", ...record },
  { name: "gpt2", target: "c_attn", ...list },
  { name: "gpt2 untied", target: "c_attn", ...record },
];

async function tensorsOf(files: Map<string, Uint8Array>): Promise<Map<string, StoredTensor>> {
  const stored = await openSafetensors(await (await openFolder(files)).open("adapter_model.safetensors"));
  const tensors = new Map<string, StoredTensor>();
  for (const key of stored.tensors.keys()) tensors.set(key, await stored.read(key));
  await stored.close();
  return tensors;
}
const minimal = (form: Form): object => ({
  peft_type: "LORA",
  r: 2,
  lora_alpha: 4,
  target_modules: [form.target],
  trainable_token_indices: form.indices(makeBase(form.name) as never),
});
function adapted(form: Form): PeftModel {
  const { peft_type: _, ...options } = minimal(form) as LoraOptions & { peft_type: string };
  const config = new LoraConfig({ ...options, init_lora_weights: false, fan_in_fan_out: form.target === "c_attn" });
  const peft = getPeftModel(makeBase(form.name), config, quiet);
  setRows(peft, "default");
  return peft;
}
async function saved(peft: PeftModel): Promise<Map<string, Uint8Array>> {
  const files = new Map<string, Uint8Array>();
  await peft.savePretrained(files);
  return files;
}

describe.each(FORMS)("LoRA folders with rows as $form, $name", (form) => {
  const { name, target } = form;
  let good: Map<string, StoredTensor>;
  let rowKeys: string[];
  let loraKeys: string[];
  let logits: Float32Array;
  beforeAll(async () => {
    const peft = adapted(form);
    logits = logitsOf(peft);
    good = await tensorsOf(await saved(peft));
    rowKeys = [...good.keys()].filter((key) => key.endsWith(".token_adapter.trainable_tokens_delta"));
    loraKeys = [...good.keys()].filter((key) => /\.lora_[AB]\.weight$/.test(key));
    expect(rowKeys).toHaveLength(form.form === "a list" ? 1 : 2);
    expect(loraKeys).toHaveLength(2);
    expect(good.size).toBe(rowKeys.length + loraKeys.length);
  });

  const folder = (tensors: Map<string, StoredTensor> = good, json: object = {}): Map<string, Uint8Array> =>
    new Map([
      ["adapter_config.json", new TextEncoder().encode(JSON.stringify({ ...minimal(form), ...json }))],
      ["adapter_model.safetensors", writeSafetensors(tensors)],
    ]);
  const without = (...keys: string[]): Map<string, StoredTensor> =>
    new Map([...good].filter(([key]) => !keys.includes(key)));
  const renamed = (to: (key: string) => string): Map<string, StoredTensor> =>
    new Map([...good].map(([key, t]) => [to(key), t]));

  async function refused(files: Map<string, Uint8Array>, options: LoadOptions = {}) {
    const base = makeBase(name);
    const before = valuesOf(base);
    for (const p of base.parameters()) p.requiresGrad = true;
    const error = await caught(() => PeftModel.fromPretrained(base, files, { ...options, ...quiet }));
    expect(valuesOf(base)).toEqual(before);
    expect(base.parameters().every((p) => p.requiresGrad)).toBe(true);
    expect(base.config.vocab_size).toBe(11);
    return error;
  }
  async function loaded(files: Map<string, Uint8Array>, options: LoadOptions = {}) {
    const { codes, onWarning } = listener();
    const peft = await PeftModel.fromPretrained(makeBase(name), files, { ...options, onWarning });
    return { peft, codes };
  }
  /** What a second adapter's load reports; the first has neither its rows nor its modules. */
  async function report(files: Map<string, Uint8Array>, options: LoadOptions) {
    const other = new LoraConfig({ r: 1, target_modules: [target], fan_in_fan_out: target === "c_attn" });
    return getPeftModel(makeBase(name), other, quiet).loadAdapter(files, "second", options);
  }

  test("a minimal config loads silently, with defaults, and computes what was saved", async () => {
    const { peft, codes } = await loaded(folder());
    expect(codes).toEqual([]);
    expect(logitsOf(peft)).toEqual(logits);
    expect(peft.peftConfig["default"]).toMatchObject({ use_rslora: false, bias: "none", modules_to_save: null });
  });

  test("unknown keys of the config are kept and written back, with a warning; unsupported ones are errors", async () => {
    const { peft, codes } = await loaded(folder(good, { runtime_config: { a: 1 }, zeal: 2 }));
    expect(codes).toEqual(["UNKNOWN_KEYS"]);
    const config = JSON.parse(new TextDecoder().decode((await saved(peft)).get("adapter_config.json")));
    expect(config).toEqual({ ...minimal(form), runtime_config: { a: 1 }, zeal: 2 });
    expect(await refused(folder(good, { use_dora: true }))).toMatchObject({
      name: "ConfigError",
      code: "UNSUPPORTED",
      fields: { key: "use_dora", value: true },
    });
  });

  test("missing rows and missing LoRA tensors are errors, or reported and left as they start", async () => {
    for (const missing of [...rowKeys, ...loraKeys]) {
      const files = folder(without(missing));
      expect(await refused(files)).toMatchObject({
        name: "CheckpointError",
        code: "MISSING",
        fields: { missing: [missing], found: [...without(missing).keys()] },
      });
      const { codes } = await loaded(files, { strict: false });
      expect(codes).toEqual(["SKIPPED_TENSORS"]);
      expect(await report(files, { strict: false })).toEqual({
        missingKeys: [missing],
        unexpectedKeys: [],
        mismatchedKeys: [],
      });
    }
    const rowsAlone = await loaded(folder(without(...loraKeys)), { strict: false });
    expect(rowsAlone.codes).toEqual(["SKIPPED_TENSORS"]);
    const loraAlone = await loaded(folder(without(...rowKeys)), { strict: false });
    const nothing = await loaded(folder(new Map()), { strict: false });
    expect(logitsOf(nothing.peft)).toEqual(logitsOf(makeBase(name)));
    expect(logitsOf(rowsAlone.peft)).not.toEqual(logitsOf(loraAlone.peft));
  });

  test("extra tensors are errors, or reported", async () => {
    const stray = good.get(loraKeys[0]!)!;
    for (const extra of [`${P}nowhere.lora_A.weight`, `${rowKeys[0]}s`, "stray"]) {
      const files = folder(new Map([...good, [extra, stray]]));
      expect(await refused(files)).toMatchObject({ code: "UNEXPECTED", fields: { unexpected: [extra] } });
      const { peft, codes } = await loaded(files, { strict: false });
      expect(codes).toEqual(["SKIPPED_TENSORS"]);
      expect(logitsOf(peft)).toEqual(logits);
      expect(await report(files, { strict: false })).toEqual({
        missingKeys: [],
        unexpectedKeys: [extra],
        mismatchedKeys: [],
      });
    }
  });

  test("tensors must have their shapes, or are left out on request, strict or not", async () => {
    for (const key of [...rowKeys, ...loraKeys]) {
      const { shape } = good.get(key)!;
      const [rows, width] = shape as [number, number];
      for (const wrong of [[rows + 1, width], [rows, width + 1], [rows * width]]) {
        const size = wrong.reduce((a, b) => a * b, 1);
        const files = folder(
          new Map([...good, [key, { dtype: "F32", shape: wrong, bytes: new Uint8Array(4 * size) }]]),
        );
        const fields = { key: key.slice(P.length), expected: shape, found: wrong };
        const ids = rowKeys.includes(key) ? { token_indices: key.includes("head") ? [2, 3, 8] : IDS } : {};
        for (const strict of [true, false])
          expect(await refused(files, { strict })).toMatchObject({ code: "SHAPE", fields: { ...fields, ...ids } });
        const { codes } = await loaded(files, { ignoreMismatchedSizes: true });
        expect(codes).toEqual(["SKIPPED_TENSORS"]);
        expect(await report(files, { ignoreMismatchedSizes: true })).toEqual({
          missingKeys: [],
          unexpectedKeys: [],
          mismatchedKeys: [key],
        });
      }
    }
  });

  test("keys may end with an adapter's name, if no other key says the same", async () => {
    const named = (by: string) => (key: string) =>
      key.endsWith(".weight") ? key.replace(/weight$/, `${by}.weight`) : `${key}.${by}`;
    const { peft, codes } = await loaded(folder(renamed(named("default"))));
    expect([codes, logitsOf(peft)]).toEqual([[], logits]);
    for (const key of [rowKeys[0]!, loraKeys[0]!]) {
      const twice = folder(new Map([...good, [named("a")(key), good.get(key)!]]));
      for (const strict of [true, false])
        expect(await refused(twice, { strict })).toMatchObject({
          code: "UNEXPECTED",
          message: expect.stringContaining("several keys"),
          fields: { unexpected: [key.slice(P.length)] },
        });
    }
  });

  test("keys without the prefix are foreign until a mapping names them", async () => {
    const files = folder(renamed((key) => key.replace(P, "encoder.")));
    const error = await refused(files);
    const keys = [...good.keys()];
    expect(error).toMatchObject({ code: "MISSING" });
    const { missing, found } = (error as unknown as { fields: Record<string, string[]> }).fields;
    expect(missing!.toSorted()).toEqual(keys.toSorted());
    expect(found!.toSorted()).toEqual(keys.map((key) => key.replace(P, "encoder.")).toSorted());
    expect(error.message).toContain("keyMapping");
    const { peft, codes } = await loaded(files, { keyMapping: { nothing: "x", "^encoder\\.": "" } });
    expect([codes, logitsOf(peft)]).toEqual([[], logits]);
    const lenient = await loaded(files, { strict: false });
    expect(lenient.codes).toEqual(["SKIPPED_TENSORS", "SKIPPED_TENSORS"]);
    expect(logitsOf(lenient.peft)).toEqual(logitsOf(makeBase(name)));
  });

  test("integers, values that are not finite, and a pickle alone are refused, strict or not", async () => {
    for (const strict of [true, false]) {
      for (const key of [rowKeys[0]!, loraKeys[0]!]) {
        const { shape, bytes } = good.get(key)!;
        const ints = folder(new Map([...good, [key, { dtype: "I32", shape, bytes }]]));
        expect(await refused(ints, { strict })).toMatchObject({ code: "DTYPE", fields: { key: key.slice(P.length) } });
        const numbers = new Float32Array(Uint8Array.from(bytes).buffer);
        numbers[3] = NaN;
        const nan = folder(new Map([...good, [key, { dtype: "F32", shape, bytes: new Uint8Array(numbers.buffer) }]]));
        expect(await refused(nan, { strict })).toMatchObject({ code: "CORRUPT", fields: { at: 3 } });
      }
      const pickled = folder();
      pickled.delete("adapter_model.safetensors");
      expect(await refused(pickled, { strict })).toMatchObject({ code: "NOT_FOUND" });
      expect(await refused(pickled.set("adapter_model.bin", new Uint8Array(8)), { strict })).toMatchObject({
        name: "CheckpointError",
        code: "PICKLE",
      });
    }
  });

  test("a rank whose matrices no memory holds is refused before they are made", async () => {
    for (const r of [2 ** 30, 2979412437626010]) {
      const error = await refused(folder(good, { r }), { strict: false, ignoreMismatchedSizes: true });
      expect(error).toMatchObject({ name: "ConfigError", code: "RANK", fields: { key: "r", value: r } });
      expect(error.message).toMatch(/^r: must give matrices of fewer than 1073741824 elements, got \d+ at .* of \[/);
    }
    const error = await refused(folder(good, { rank_pattern: { ".*": 2 ** 30 } }), { strict: false });
    const key = 'rank_pattern[".*"]';
    expect(error).toMatchObject({ name: "ConfigError", code: "RANK", fields: { key, value: 2 ** 30 } });
    expect(error.message).toMatch(/^rank_pattern\["\.\*"\]: must give matrices of fewer than /);
  });

  test("ids beyond the table are an error, or grow it first", async () => {
    const indices =
      form.form === "a list"
        ? [1, 13]
        : { ...(minimal(form) as LoraOptions).trainable_token_indices, [short(makeBase(name).embeddingPath)]: [1, 13] };
    const files = folder(good, { trainable_token_indices: indices });
    expect(await refused(files)).toMatchObject({ code: "INDEX_RANGE", fields: { rows: 11 } });
    const { peft, codes } = await loaded(files, { resize: true });
    expect(codes).toEqual(["TABLE_GROWN"]);
    expect(peft.getBaseModel().config.vocab_size).toBe(14);
    expect(peft.getBaseModel().tiedPaths.length > 0).toBe(isTied(name));
  });

  /** The error of a damaged folder, null where it still loads; the base is as it was. */
  const base = makeBase(name);
  const before = valuesOf(base);
  async function typedError(files: Map<string, Uint8Array>, options: LoadOptions): Promise<Error | null> {
    const error = await PeftModel.fromPretrained(base, files, { ...options, ...quiet }).then(
      (peft) => void peft.unload(),
      (e: Error) => e,
    );
    expect(["CheckpointError", "ConfigError", "TargetError", undefined], error?.stack).toContain(error?.name);
    expect(valuesOf(base)).toEqual(before);
    return error ?? null;
  }
  const OPTIONS = fc.record({ strict: fc.boolean(), ignoreMismatchedSizes: fc.boolean() });

  test("P-28: damaged bytes give typed errors and leave the model", async () => {
    const files = await saved(adapted(form));
    const damage = fc.record({
      file: fc.constantFrom("adapter_config.json", "adapter_model.safetensors"),
      at: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
      removed: fc.nat(8),
      inserted: fc.uint8Array({ maxLength: 8 }),
    });
    let refusals = 0;
    await fc.assert(
      fc.asyncProperty(damage, OPTIONS, async ({ file, at, removed, inserted }, options) => {
        const bytes = files.get(file)!;
        const place = Math.floor(at * bytes.length);
        const broken = Uint8Array.of(...bytes.slice(0, place), ...inserted, ...bytes.slice(place + removed));
        if (await typedError(new Map([...files, [file, broken]]), options)) refusals++;
      }),
      { numRuns: 300 },
    );
    expect(refusals).toBeGreaterThan(100);
  });

  test("P-28: so do values of the config that are no such value, and shapes of tensors", async () => {
    const files = await saved(adapted(form));
    const config = JSON.parse(new TextDecoder().decode(files.get("adapter_config.json"))) as Record<string, unknown>;
    const damage = fc.record({ key: fc.constantFrom(...Object.keys(config)), value: fc.jsonValue({ maxDepth: 2 }) });
    let refusals = 0;
    await fc.assert(
      fc.asyncProperty(damage, OPTIONS, async ({ key, value }, options) => {
        const json = new TextEncoder().encode(JSON.stringify({ ...config, [key]: value }));
        if (await typedError(new Map([...files, ["adapter_config.json", json]]), options)) refusals++;
      }),
      { numRuns: 500 },
    );
    expect(refusals).toBeGreaterThan(100);
    const reshaped = fc.record({
      key: fc.constantFrom(...good.keys()),
      shape: fc.array(fc.nat(14), { maxLength: 3 }),
      options: OPTIONS,
    });
    await fc.assert(
      fc.asyncProperty(reshaped, async ({ key, shape, options }) => {
        const bytes = new Uint8Array(4 * shape.reduce((a, b) => a * b, 1));
        await typedError(folder(new Map([...good, [key, { dtype: "F32", shape, bytes }]])), options);
      }),
      { numRuns: 100 },
    );
  });
});
