import { setDefaultBackend } from "@neolog/tensor";
import { beforeAll, describe, expect, test } from "vitest";
import { LoraConfig, type LoraOptions, PeftModel, getPeftModel } from "../index.ts";
import { caught, logitsOf, makeBase, setRows, valuesOf } from "../testing.ts";
import { ALL_IDS, HIDDEN, IDS, embed, embeddingOf, everyWorld, expectSame, saved } from "./world.ts";

/** Token rows beside LoRA; every architecture. */
describe.each(await everyWorld())("rows beside LoRA, $name on $title", ({ name, backend }) => {
  beforeAll(() => setDefaultBackend(backend));
  const { embeddingPath: EMBEDDING, headPath: HEAD } = makeBase(name);
  const lora = (options: LoraOptions = {}) =>
    new LoraConfig({ r: 2, target_modules: "all-linear", trainable_token_indices: IDS, ...options });
  const quiet = { onWarning: () => {} };
  function withRows(options: LoraOptions = {}): PeftModel {
    const peft = getPeftModel(makeBase(name), lora({ init_lora_weights: false, ...options }), quiet);
    setRows(peft, "default");
    return peft;
  }

  test("A-2: a saved adapter on a fresh base changes its ids and leaves the table", async () => {
    const peft = withRows();
    const base = makeBase(name);
    const table = valuesOf(base).get(`${EMBEDDING}.weight`)!;
    const loaded = await PeftModel.fromPretrained(base, await saved(peft), quiet);
    expectSame(embed(loaded, ALL_IDS), embed(peft, ALL_IDS));
    for (const id of ALL_IDS) {
      const row = Array.from(table).slice(id * HIDDEN, (id + 1) * HIDDEN);
      expect(
        Array.from(embed(loaded, [id])).every((x, i) => x === row[i]),
        `row ${id}`,
      ).toBe(!IDS.includes(id));
    }
    expect(embeddingOf(loaded).table.dataSync()).toEqual(table);
    expectSame(logitsOf(loaded), logitsOf(peft));
  });

  test("A-13: a target of rows that is not there is refused, and nothing has changed", async () => {
    const base = makeBase(name);
    const before = valuesOf(base);
    const near = `${EMBEDDING.split(".").at(-1)}s`;
    const error = await caught(() => getPeftModel(base, lora({ trainable_token_indices: { [near]: IDS } }), quiet));
    expect(error).toMatchObject({ name: "TargetError", code: "NOT_FOUND" });
    expect(error.message).toContain(`did you mean "${EMBEDDING}"`);
    expect(valuesOf(base)).toEqual(before);
  });

  test("A-15: a file holds one tensor of the embedding: the rows", async () => {
    const bytes = (await saved(withRows())).get("adapter_model.safetensors")!;
    const header = new TextDecoder().decode(
      bytes.slice(8, 8 + new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true)),
    );
    const keys = Object.keys(JSON.parse(header)).filter(
      (key) => /trainable_tokens|base_layer/.test(key) || key.includes(`${EMBEDDING}.`),
    );
    expect(keys).toEqual([`base_model.model.${EMBEDDING}.token_adapter.trainable_tokens_delta`]);
  });

  test("A-21: rows of a module that trains in full are refused, in every spelling, and nothing has changed", async () => {
    const short = EMBEDDING.split(".").slice(-2).join(".");
    const { tiedPaths } = makeBase(name);
    const full = [[EMBEDDING], [short], ...(tiedPaths.includes(HEAD) ? [[HEAD]] : [])];
    for (const modules_to_save of full) {
      for (const trainable_token_indices of [IDS, { [EMBEDDING]: IDS }]) {
        const base = makeBase(name);
        const before = valuesOf(base);
        const config = lora({ modules_to_save, trainable_token_indices });
        expect(await caught(() => getPeftModel(base, config, quiet))).toMatchObject({
          name: "ConfigError",
          code: "TOKENS_AND_FULL",
        });
        expect(valuesOf(base)).toEqual(before);
      }
    }
  });

  test("A-62: unloading gives the base back, merged or not", async () => {
    for (const merged of [true, false]) {
      const base = makeBase(name);
      const [before, logits] = [valuesOf(base), logitsOf(base)];
      const peft = getPeftModel(base, lora({ init_lora_weights: false }), quiet);
      setRows(peft, "default");
      if (merged) await peft.mergeAdapter();
      expect(peft.unload()).toBe(base);
      expect(valuesOf(base)).toEqual(before);
      expectSame(logitsOf(base), logits);
    }
  });

  test("A-66: of two adapters one has rows: what is set, trains and is listed is right on every module", () => {
    const peft = withRows();
    peft.addAdapter("plain", lora({ trainable_token_indices: null }));
    for (const active of ["plain", "default"]) {
      peft.setAdapter(active);
      for (const status of peft.getLayerStatus()) {
        const both = ["default", "plain"];
        const here = status.name.endsWith(".token_adapter") ? ["default"] : both;
        expect(status.available_adapters, status.name).toEqual(here);
        expect(status.active_adapters).toEqual(here.filter((adapter) => adapter === active));
        expect(status.requires_grad).toEqual(Object.fromEntries(here.map((adapter) => [adapter, adapter === active])));
      }
      expect(
        embed(peft, [IDS[0]!]).some((x, i) => x !== embeddingOf(peft).table.dataSync()[IDS[0]! * HIDDEN + i]),
      ).toBe(active === "default");
    }
  });
});
