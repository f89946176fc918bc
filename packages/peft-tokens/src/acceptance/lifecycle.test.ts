import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  AutoModelForCausalLM,
  AutoModelForMaskedLM,
  AutoModelForSeq2SeqLM,
  CausalLM,
  MaskedLM,
  Seq2SeqLM,
} from "@neolog/models";
import { beforeAll, describe, expect, test } from "vitest";
import { Linear } from "@neolog/nn";
import { defaultBackend, setDefaultBackend, tensor } from "@neolog/tensor";
import { type AdapterError, getPeftModel } from "../index.ts";
import { caught, listener, logitsOf, makeBase, setRows, valuesOf } from "../testing.ts";
import { config, embeddingOf, everyWorld, expectSame, train, withRows, withThree } from "./world.ts";

describe.each(await everyWorld())("merging, disabling, deleting, $name on $title", ({ name, backend }) => {
  beforeAll(() => setDefaultBackend(backend));

  test("A-4, A-58: trained, merged, disabled it is the base; enabled it is trained and still merged", async () => {
    const base = makeBase(name);
    const plain = logitsOf(base);
    const peft = getPeftModel(base, config());
    train(peft, 3);
    const trained = logitsOf(peft);
    await peft.mergeAdapter();
    expect(peft.withAdapterDisabled(() => logitsOf(peft))).toEqual(plain);
    expect(peft.mergedAdapters).toEqual(["default"]);
    expectSame(logitsOf(peft), trained);
  });

  test("A-50, A-56: over bfloat16 and float16 tables rows are float32, merging keeps the logits, unmerging the bytes", async () => {
    for (const dtype of ["bfloat16", "float16"] as const) {
      const base = makeBase(name);
      for (const [path, module] of base.namedModules()) {
        if (path !== base.embeddingPath && !(module instanceof Linear)) continue;
        const holder = module as Linear;
        holder.weight = tensor(Array.from(holder.weight.dataSync()), holder.weight.shape, dtype);
      }
      const plain = logitsOf(base);
      const bytes = valuesOf(base);
      const peft = getPeftModel(base, config());
      expect(embeddingOf(peft).trainable_tokens_delta["default"]!.dtype).toBe("float32");
      expectSame(logitsOf(peft), plain, `${dtype} fresh`);
      train(peft, 3);
      const trained = logitsOf(peft);
      expect(trained).not.toEqual(plain);
      await peft.mergeAdapter({ safeMerge: true });
      expectSame(logitsOf(peft), trained, `${dtype} merged`);
      peft.unmergeAdapter();
      expect(valuesOf(peft.unload()), `${dtype} unmerged`).toEqual(bytes);
      const kept = getPeftModel(base, config(), { autocastAdapterDtype: false });
      expect(embeddingOf(kept).trainable_tokens_delta["default"]!.dtype).toBe(dtype);
    }
  });

  test("A-52, A-54: a NaN row stops a safe merge with the base untouched; plain and safe merges write the same", async () => {
    const tables = [];
    for (const safeMerge of [false, true]) {
      const base = makeBase(name);
      const peft = withRows(base);
      await peft.mergeAdapter({ safeMerge });
      tables.push(embeddingOf(peft).table.dataSync());
    }
    expect(tables[0]).toEqual(tables[1]);
    const base = makeBase(name);
    const before = valuesOf(base);
    const peft = withRows(base);
    setRows(peft, "default", (slot, column) => (slot === 2 && column === 5 ? NaN : 1));
    const error = (await caught(() => peft.mergeAdapter({ safeMerge: true }))) as AdapterError;
    expect(error.code).toBe("NON_FINITE");
    expect(error.fields).toMatchObject({ name: "default", count: 1, row: 2, column: 5 });
    expect(valuesOf(peft.unload())).toEqual(before);
  });

  test("mergeAndUnload keeps what was merged before, and says so", async () => {
    const { codes, onWarning } = listener();
    const peft = withThree(makeBase(name), onWarning as () => void);
    peft.setAdapter(["default", "second"]);
    const before = logitsOf(peft);
    peft.setAdapter(["second"]);
    await peft.mergeAdapter();
    const merged = await peft.mergeAndUnload({ adapterNames: ["default"] });
    expect(codes).toEqual(["ALREADY_MERGED"]);
    expectSame(logitsOf(merged), before);
  });

  test("A-57, A-59: disabling nests and restores, around promises too", async () => {
    const base = makeBase(name);
    const plain = logitsOf(base);
    const peft = withRows(base);
    const trained = logitsOf(peft);
    {
      using _outer = peft.disableAdapter();
      expectSame(logitsOf(peft), plain);
      {
        using _inner = peft.disableAdapter();
        expectSame(logitsOf(peft), plain);
      }
      expect(peft.enabled).toBe(false);
    }
    expectSame(logitsOf(peft), trained);
    const later = peft.withAdapterDisabled(async () => {
      await Promise.resolve();
      return logitsOf(peft);
    });
    expect(peft.enabled).toBe(false);
    expect(await later).toEqual(plain);
    expect(peft.enabled).toBe(true);
    await caught(() => peft.withAdapterDisabled(() => Promise.reject(new Error("no"))));
    await caught(() =>
      peft.withAdapterDisabled(() => {
        throw new Error("no");
      }),
    );
    expect(peft.enabled).toBe(true);
    peft.disableAdapterLayers();
    peft.withAdapterDisabled(() => {});
    expect(peft.enabled).toBe(false);
  });

  test("A-61: deleting the active, an inactive, an unknown and a merged adapter", async () => {
    const { codes, onWarning } = listener();
    const peft = withThree(makeBase(name), onWarning as () => void);
    peft.deleteAdapter("third");
    expect(peft.activeAdapters).toEqual(["default"]);
    expect((await caught(() => peft.deleteAdapter("third"))).code).toBe("UNKNOWN");
    await peft.mergeAdapter();
    expect((await caught(() => peft.deleteAdapter("default"))).code).toBe("MERGED");
    peft.unmergeAdapter();
    peft.deleteAdapter("default");
    expect(codes).toEqual(["ACTIVE_DELETED"]);
    expect(peft.activeAdapters).toEqual(["second"]);
  });

  test("A-61: what becomes active after a deletion shares no id with what is merged", async () => {
    const peft = withThree(makeBase(name));
    peft.addAdapter("a rival", config([7]));
    peft.setAdapter("third");
    await peft.mergeAdapter({ adapterNames: ["default"] });
    peft.deleteAdapter("third");
    expect(peft.activeAdapters).toEqual(["default"]);
    const merged = logitsOf(peft);
    peft.unmergeAdapter();
    expectSame(logitsOf(peft), merged);
  });

  test("A-67, A-68: two active adapters: the same ids are refused, different ones are both in effect", async () => {
    const peft = withThree(makeBase(name));
    peft.addAdapter("rival", config([9]));
    expect(await caught(() => peft.setAdapter(["second", "rival"]))).toMatchObject({ code: "OVERLAP" });
    expect(peft.activeAdapters).toEqual(["default"]);
    const alone = ["second", "third"].map((adapter) => (peft.setAdapter(adapter), logitsOf(peft)));
    peft.setAdapter(["second", "third"]);
    const both = logitsOf(peft);
    for (const logits of alone) expect(both).not.toEqual(logits);
  });

  test("A-69: of three adapters deleting one takes its ids, rows and originals, and frees them", () => {
    const base = makeBase(name);
    const { live } = defaultBackend();
    const peft = withThree(base);
    peft.deleteAdapter("second");
    const layer = embeddingOf(peft);
    expect(layer.adapters).toEqual(["default", "third"]);
    expect(Object.keys(layer.trainable_tokens_delta)).toEqual(["default", "third"]);
    expect(defaultBackend().live).toBe(live + 4);
    for (const status of peft.getLayerStatus()) expect(status.available_adapters).toEqual(["default", "third"]);
    peft.unload();
    expect(defaultBackend().live).toBe(live);
  });

  test("A-73: merged, saved as a plain model and loaded again, it gives the same logits", async () => {
    const peft = withRows(makeBase(name));
    const before = logitsOf(peft);
    const merged = await peft.mergeAndUnload();
    const dir = await mkdtemp(join(tmpdir(), "neolog-merged-"));
    try {
      await merged.savePretrained(dir);
      const kind = [CausalLM, MaskedLM, Seq2SeqLM].findIndex((Kind) => merged instanceof Kind);
      const auto = [AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM][kind]!;
      expectSame(logitsOf((await auto.fromPretrained(dir)) as never), before);
    } finally {
      await rm(dir, { recursive: true });
    }
  });

  test("setting while something is merged takes it out, with a warning", async () => {
    const { codes, onWarning } = listener();
    const base = makeBase(name);
    const before = valuesOf(base);
    const peft = withThree(base, onWarning as () => void);
    await peft.mergeAdapter();
    peft.setAdapter("second");
    expect(codes).toEqual(["UNMERGED_FIRST"]);
    expect(peft.mergedAdapters).toEqual([]);
    expect(valuesOf(peft.unload())).toEqual(before);
  });
});
