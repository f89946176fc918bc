import { setDefaultBackend } from "@neolog/tensor";
import { beforeAll, describe, expect, test } from "vitest";
import {
  type ConfigError,
  LoraConfig,
  type LoraOptions,
  type PeftModel,
  type TokenIndices,
  TrainableTokensConfig,
  getPeftModel,
  tokenParameters,
} from "../index.ts";
import { caught, isTied, listener, logitsOf, makeBase, put, setRows, valuesOf } from "../testing.ts";
import { HIDDEN, IDS, embeddingOf, everyWorld, expectSame, saved } from "./world.ts";

/** Where rows go on tied and untied models; every architecture. */
describe.each(await everyWorld())("ties, $name on $title", ({ name, backend }) => {
  beforeAll(() => setDefaultBackend(backend));
  const { embeddingPath: EMBEDDING, headPath: HEAD } = makeBase(name);
  const tied = isTied(name);

  const lora = (trainable_token_indices: TokenIndices, more: LoraOptions = {}) =>
    new LoraConfig({ r: 2, target_modules: "all-linear", trainable_token_indices, ...more });
  function adapted(indices: TokenIndices, more: LoraOptions = {}): { peft: PeftModel; codes: string[] } {
    const { codes, onWarning } = listener();
    const peft = getPeftModel(makeBase(name), lora(indices, more), { onWarning });
    return { peft, codes: codes.filter((code) => code !== "FAN_IN_FAN_OUT") };
  }
  /** Modules with rows of their own. */
  const owners = (peft: PeftModel): string[] => [...peft.layers().keys()];
  const rowTensors = (peft: PeftModel) =>
    tokenParameters(peft).filter((t) => t.shape[1] === HIDDEN && t.shape[0]! <= 3);

  test.runIf(tied)(
    "A-17, A-39: a list or a name for the embedding reaches the tied head too, without keys of its own",
    async () => {
      for (const indices of [IDS, { [EMBEDDING]: IDS }]) {
        const { peft } = adapted(indices);
        setRows(peft, "default");
        expect(owners(peft)).toEqual([EMBEDDING]);
        const dense = makeBase(name);
        const table = new Map(dense.namedParameters()).get(`${EMBEDDING}.weight`)!;
        const values = table.dataSync().slice();
        const rows = embeddingOf(peft).trainable_tokens_delta["default"]!.dataSync();
        IDS.forEach((id, slot) => values.set(rows.slice(slot * HIDDEN, (slot + 1) * HIDDEN) as never, id * HIDDEN));
        put(table, values);
        expectSame(logitsOf(peft), logitsOf(dense));
        const keys = new TextDecoder("latin1").decode((await saved(peft)).get("adapter_model.safetensors"));
        expect(keys.match(/trainable_tokens_delta/g)).toHaveLength(1);
        const merged = await peft.mergeAndUnload();
        expect(new Set(merged.tiedPaths)).toEqual(new Set(dense.tiedPaths));
        expect(valuesOf(merged).get(`${EMBEDDING}.weight`)).toEqual(values);
      }
    },
  );

  test.runIf(makeBase(name).tiedPaths.length === 0)(
    "A-32: insisting on a tie where nothing is tied is a warning, whatever the form",
    () => {
      for (const indices of [IDS, { [EMBEDDING]: IDS }, { [HEAD]: IDS }, { [EMBEDDING]: IDS, [HEAD]: IDS }])
        expect(adapted(indices, { ensure_weight_tying: true }).codes).toEqual(["NOT_TIED"]);
    },
  );

  test.runIf(tied)(
    "A-33, A-34: different lists on a tie are independent, or a conflict where ties are insisted on",
    async () => {
      for (const [a, b] of [
        [IDS, [2, 9]],
        [IDS, IDS.toReversed()],
      ] as const) {
        const indices = { [EMBEDDING]: a, [HEAD]: b };
        const { peft, codes } = adapted(indices);
        expect(codes).toEqual([]);
        expect(owners(peft).toSorted()).toEqual([EMBEDDING, HEAD].toSorted());
        expectSame(logitsOf(peft), logitsOf(makeBase(name)));
        const base = makeBase(name);
        const before = valuesOf(base);
        const error = (await caught(() =>
          getPeftModel(base, lora(indices, { ensure_weight_tying: true }), listener()),
        )) as ConfigError;
        expect(error).toMatchObject({ name: "ConfigError", code: "TIE_CONFLICT" });
        for (const part of [EMBEDDING, HEAD, a.join(", "), b.join(", ")]) expect(error.message).toContain(part);
        expect(valuesOf(base)).toEqual(before);
      }
    },
  );

  test.runIf(tied)("A-35, A-36, A-37, A-43: equal lists on a tie are one set of rows, with the flag or without", () => {
    const short = (path: string): string => path.split(".").at(-1)!;
    const forms: TokenIndices[] = [
      IDS,
      { [EMBEDDING]: IDS },
      { [EMBEDDING]: IDS, [HEAD]: IDS },
      { [HEAD]: IDS, [EMBEDDING]: [...IDS] },
      { [EMBEDDING.split(".").slice(-2).join(".")]: IDS, [HEAD]: IDS },
    ];
    for (const ensure_weight_tying of [true, false]) {
      for (const form of forms) {
        const { peft, codes } = adapted(form, { ensure_weight_tying });
        expect([owners(peft), rowTensors(peft).length, codes]).toEqual([[EMBEDDING], 1, []]);
      }
    }
    const target_modules = [short(EMBEDDING), HEAD];
    const both = new TrainableTokensConfig({ token_indices: IDS, target_modules });
    expect(tokenParameters(getPeftModel(makeBase(name), both))).toHaveLength(1);
  });

  test.runIf(!tied)("A-38, A-40: untied, a list takes the embedding alone, a dictionary separate rows for each", () => {
    const list = adapted(IDS);
    expect([owners(list.peft), list.codes]).toEqual([[EMBEDDING], []]);
    const { peft } = adapted({ [EMBEDDING]: IDS, [HEAD]: IDS });
    expect(owners(peft).toSorted()).toEqual([EMBEDDING, HEAD].toSorted());
    expect(new Set([...peft.layers().values()].map((layer) => layer.trainable_tokens_delta["default"])).size).toBe(2);
  });

  test("A-20: every module that shares the table sees the rows", () => {
    const base = makeBase(name);
    const peft = getPeftModel(base, new TrainableTokensConfig({ token_indices: IDS }));
    setRows(peft, "default");
    expect(peft.getLayerStatus().map((status) => status.name)).toEqual([EMBEDDING, ...base.tiedPaths]);
    const dense = makeBase(name);
    const table = new Map(dense.namedParameters()).get(`${EMBEDDING}.weight`)!;
    const values = table.dataSync().slice();
    const rows = embeddingOf(peft).trainable_tokens_delta["default"]!.dataSync();
    IDS.forEach((id, slot) => values.set(rows.slice(slot * HIDDEN, (slot + 1) * HIDDEN) as never, id * HIDDEN));
    put(table, values);
    expectSame(logitsOf(peft), logitsOf(dense));
  });
});
