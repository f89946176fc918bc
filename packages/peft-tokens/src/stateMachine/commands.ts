import { AdamW, backward } from "@neolog/autograd";
import { Scope } from "@neolog/tensor";
import fc from "fast-check";
import { expect } from "vitest";
import { PeftModel, tokenParameters, tokensOf } from "../index.ts";
import { caught } from "../testing.ts";
import { HIDDEN, SIDES, type Side, type Where } from "./dense.ts";
import { INPUT, type Real, configFor, dispose } from "./real.ts";
import { same } from "./same.ts";

/** A command with its arguments; `run` applies it to the model under test and to the oracle, or expects it to fail. */
export class Command {
  readonly title: string;
  readonly run: (real: Real) => Promise<void> | void;

  constructor(title: string, run: (real: Real) => Promise<void> | void) {
    this.title = title;
    this.run = run;
  }
  toString(): string {
    return this.title;
  }
}

/** Runs what must fail, and P-8: that nothing changed. */
export async function refuses(real: Real, code: string, run: () => unknown): Promise<void> {
  const before = real.snapshot();
  const error = await caught(run);
  expect(error.code, `${error.message}: code`).toBe(code);
  same(real.snapshot(), before, "P-8");
}

const NAMES = ["default", "b", "c", "d"];
export const IDS = [[1, 2], [2, 5], [7], [0, 8, 3], [4, 7]];
const BAD_IDS: readonly (readonly [readonly number[], string])[] = [
  [[], "INDICES_EMPTY"],
  [[9], "INDEX_RANGE"],
  [[-1], "INDEX_RANGE"],
  [[3, 3], "INDEX_DUPLICATE"],
  [[0.5], "INDEX_TYPE"],
];
const TARGETS: readonly Where[] = ["embedding", "embedding", "embedding", "both", "head", "second", "all"];

export const name = fc.constantFrom(...NAMES);
export const names = fc.uniqueArray(name, { maxLength: 3 });
/** Three of four lists of names are cut down to what is possible, so that sequences get somewhere. */
const fits = fc.integer({ min: 0, max: 3 }).map((n) => n > 0);
const often = fc.boolean();

const add = fc
  .record({ name, ids: fc.constantFrom(...IDS), where: fc.constantFrom(...TARGETS), init: fc.boolean() })
  .map(
    ({ name, ids, where, init }): Command =>
      new Command(`add ${name} [${ids.join(", ")}] ${where} ${init ? "fresh" : "random"}`, (real) => {
        const { peft, dense } = real;
        const go = () => peft.addAdapter(name, configFor(ids, where, init), { seed: 5 });
        if (dense.adapters.has(name)) return refuses(real, "EXISTS", go);
        go();
        dense.adapters.set(name, { ids, rows: real.rowsOf(name), requiresGrad: false });
        const { rows } = dense.get(name);
        same(Object.keys(rows), [...dense.sidesOf(where)], "sides");
        if (init) for (const side of dense.sidesOf(where)) same(rows[side], dense.originals(side, ids), "P-13");
      }),
  );

const addBadly = fc
  .constantFrom(...BAD_IDS)
  .map(
    ([ids, code]) =>
      new Command(`add [${ids.join(", ")}]`, (real) =>
        refuses(real, code, () => real.peft.addAdapter("bad", configFor(ids, "embedding", true))),
      ),
  );

const unknown = fc
  .constantFrom<[string, (peft: PeftModel) => unknown, string]>(
    ["set an unknown one", (peft) => peft.setAdapter(["default", "ghost"]), "UNKNOWN"],
    ["merge an unknown one", (peft) => peft.mergeAdapter({ adapterNames: ["ghost"] }), "UNKNOWN"],
    ["merge text", (peft) => peft.mergeAdapter({ adapterNames: "b" as never }), "ARGUMENT"],
    ["unload with an unknown one", (peft) => peft.mergeAndUnload({ adapterNames: ["ghost"] }), "UNKNOWN"],
    ["delete an unknown one", (peft) => peft.deleteAdapter("ghost"), "UNKNOWN"],
    ["flag an unknown one", (peft) => peft.setRequiresGrad(["ghost"]), "UNKNOWN"],
    ["save an unknown one", (peft) => peft.savePretrained(new Map(), { selectedAdapters: ["ghost"] }), "UNKNOWN"],
    ["load from nothing", (peft) => peft.loadAdapter(new Map(), "new"), "NOT_FOUND"],
    ["name one a.b", (peft) => peft.addAdapter("a.b", configFor([1], "embedding", true)), "NAME"],
    ["wrap again", (peft) => new PeftModel(peft.getBaseModel()), "ALREADY_WRAPPED"],
  )
  .map(
    ([title, go, code]) =>
      new Command(title, (real) => {
        if (code !== "ALREADY_WRAPPED" || real.peft.layers().size > 0) return refuses(real, code, () => go(real.peft));
      }),
  );

const set = fc.record({ names, fits, inferenceMode: fc.boolean() }).map(
  ({ names, fits, inferenceMode }): Command =>
    new Command(
      `set [${names.join(", ")}]${fits ? " where possible" : ""}${inferenceMode ? " for inference" : ""}`,
      (real) => {
        const { peft, dense } = real;
        const list = fits ? dense.possible(names) : names;
        const go = () => peft.setAdapter(list, { inferenceMode });
        if (!dense.knows(list)) return refuses(real, "UNKNOWN", go);
        if (dense.overlaps(list)) return refuses(real, "OVERLAP", go);
        go();
        dense.activate(list, !inferenceMode);
      },
    ),
);

const flag = fc.record({ names, flag: fc.boolean() }).map(
  ({ names, flag }) =>
    new Command(`flag [${names.join(", ")}] ${flag}`, (real) => {
      const { peft, dense } = real;
      const go = () => peft.setRequiresGrad(names, flag);
      if (!dense.knows(names)) return refuses(real, "UNKNOWN", go);
      go();
      for (const name of names) dense.get(name).requiresGrad = flag;
    }),
);

const switches = fc.constantFrom(true, false).map(
  (enabled): Command =>
    new Command(enabled ? "enable" : "disable", ({ peft, dense }) => {
      if (enabled) peft.enableAdapterLayers();
      else peft.disableAdapterLayers();
      dense.enabled = enabled;
    }),
);

interface MergeArguments {
  readonly names: readonly string[] | undefined;
  readonly fits: boolean;
  readonly safeMerge: boolean;
  readonly untie: boolean;
}
const mergeArguments: fc.Arbitrary<MergeArguments> = fc.record({
  names: fc.option(names, { nil: undefined, freq: 3 }),
  fits,
  safeMerge: often,
  untie: often,
});
const shown = ({ names, fits, safeMerge, untie }: MergeArguments): string =>
  [names ? `[${names.join(", ")}]` : "the active", fits && "where possible", safeMerge && "safely", untie && "untying"]
    .filter(Boolean)
    .join(" ");

/** The code that merging must fail with, or null. */
function mergeFailure(
  { dense }: Real,
  list: readonly string[],
  untie: boolean,
  staying: readonly string[],
): string | null {
  if (!dense.knows(list)) return "UNKNOWN";
  if (dense.overlaps([...new Set([...dense.merged, ...list, ...staying])])) return "OVERLAP";
  const oneSided = list.some((name) => !dense.merged.includes(name) && dense.isOneSided(name));
  return oneSided && !untie ? "SHARED_TABLE" : null;
}
function untieWhereNeeded({ dense, saved }: Real, list: readonly string[]): void {
  if (!list.some((name) => !dense.merged.includes(name) && dense.isOneSided(name))) return;
  dense.tied = false;
  saved.clear(); // files of a tied base hold what an untied one refuses
}

const merge = mergeArguments.map(
  (given): Command =>
    new Command(`merge ${shown(given)}`, async (real) => {
      const { peft, dense } = real;
      const { safeMerge, untie } = given;
      const names =
        given.names && given.fits ? dense.possible(given.names, [...dense.merged, ...dense.active]) : given.names;
      const list = names ?? dense.active;
      const go = () => peft.mergeAdapter({ ...(names && { adapterNames: names }), safeMerge, untie });
      const failure = mergeFailure(real, list, untie, dense.active);
      if (failure) return refuses(real, failure, go);
      const [before, inEffect] = [real.logits(), dense.effective.length];
      await go();
      untieWhereNeeded(real, list);
      dense.merged = [...new Set([...dense.merged, ...list])];
      if (dense.effective.length === inEffect) same(real.logits(), before, "P-6");
      const once = real.storedTables();
      await go();
      same(real.storedTables(), once, "P-14: merging again");
    }),
);

const unmerge = fc.constant(
  new Command("unmerge", (real) => {
    real.peft.unmergeAdapter();
    real.dense.merged = [];
    same(real.storedTables(), real.dense.tables, "P-3, P-14");
  }),
);

const remove = name.map(
  (name): Command =>
    new Command(`delete ${name}`, (real) => {
      const { peft, dense } = real;
      const go = () => peft.deleteAdapter(name);
      if (!dense.adapters.has(name)) return refuses(real, "UNKNOWN", go);
      if (dense.merged.includes(name)) return refuses(real, "MERGED", go);
      go();
      dense.delete(name);
      if (dense.adapters.size === 0) same(real.logits(real.base), real.expectedLogits([]), "P-20");
    }),
);

const unload = fc.constant(
  new Command("unload", (real) => {
    expect(real.peft.unload()).toBe(real.base);
    same(real.storedTables(), real.dense.tables, "P-20");
    same(real.logits(real.base), real.expectedLogits([]), "P-20");
    real.wrap();
  }),
);

const mergeAndUnload = mergeArguments.map(
  (given): Command =>
    new Command(`merge and unload ${shown(given)}`, async (real) => {
      const { peft, dense } = real;
      const { safeMerge, untie } = given;
      const names = given.names && given.fits ? dense.possible(given.names, dense.merged) : given.names;
      const list = names ?? dense.active;
      const go = () => peft.mergeAndUnload({ ...(names && { adapterNames: names }), safeMerge, untie });
      const failure = mergeFailure(real, list, untie, []);
      if (failure) return refuses(real, failure, go);
      expect(await go()).toBe(real.base);
      untieWhereNeeded(real, list);
      dense.tables = dense.tablesWith([...new Set([...dense.merged, ...list])]);
      same(real.storedTables(), dense.tables, "merged tables");
      real.wrap();
    }),
);

/** P-11, P-12: gradients exactly for what is trainable, in effect and unmerged; they are the dense table's, and a step changes only that. */
const step = fc.constant(
  new Command("step", async (real) => {
    const { peft, dense } = real;
    using _scope = new Scope();
    const { loss } = peft.forward(INPUT);
    const { training } = dense;
    expect(loss!.tracked, "P-11").toBe(training.length > 0);
    if (training.length === 0) {
      await refuses(real, "NOTHING_TO_TRAIN", () => peft.backward(loss!));
      return;
    }
    peft.backward(loss!);
    const expected = denseGradients(real);
    for (const [name, { ids }] of dense.adapters) {
      const deltas = real.deltasOf(name);
      for (const side of SIDES) {
        const delta = deltas[side];
        if (!delta) continue;
        expect(delta.grad !== null, `P-11: gradient of ${name}`).toBe(training.includes(name));
        if (!delta.grad) continue;
        const sides = SIDES.filter((other) => deltas[other] === delta);
        Array.from(delta.grad.dataSync()).forEach((g, i) => {
          const at = ids[Math.floor(i / HIDDEN)]! * HIDDEN + (i % HIDDEN);
          const whole = sides.reduce((sum, s) => sum + expected[s][at]!, 0);
          const off = Math.abs(g - whole);
          if (!(off < 1e-5 * Math.max(1, Math.abs(whole)))) expect(g, `gradient ${i} of ${name}`).toBe(whole);
        });
      }
    }
    same(real.base.parameters().filter((p) => p.grad && !p.requiresGrad).length, 0, "P-11: gradients of the base");
    const parameters = tokenParameters(peft);
    const optimizer = new AdamW(parameters, { lr: 0.1 });
    optimizer.step();
    optimizer.dispose();
    for (const p of parameters) p.grad = null;
    for (const name of training) dense.get(name).rows = real.rowsOf(name);
  }),
);

/** Gradients of the whole tables of the plain twin. */
function denseGradients(real: Real): Record<Side, ArrayLike<number>> {
  const twin = real.twinWith(real.dense.effective);
  const tables = twin.parameters();
  for (const t of tables) t.requiresGrad = true;
  backward(twin.forward(INPUT).loss!);
  const [input, second, output] = tables.map((t) => t.grad!.dataSync());
  for (const t of tables) {
    t.requiresGrad = false;
    t.grad = null;
  }
  return { input: input!, second: second!, output: output! };
}

/** P-7, P-17, P-18: saving changes nothing, and what is saved is what loads, whatever is active, merged or disabled. */
const save = fc.constant(
  new Command("save and reload", async (real) => {
    const { peft, dense, saved } = real;
    if (dense.adapters.size === 0) return refuses(real, "UNKNOWN", () => peft.savePretrained(new Map()));
    const before = real.snapshot();
    const files = new Map<string, Uint8Array>();
    await peft.savePretrained(files);
    same(real.snapshot(), before, "P-7");
    for (const [name, { ids, rows }] of dense.adapters) {
      const own = new Map([...files].flatMap(([file, bytes]) => fileOf(name, file, bytes)));
      const base = real.freshBase();
      const loaded = await PeftModel.fromPretrained(base, own, { adapterName: "other", onWarning: () => {} });
      same([...tokensOf(loaded.peftConfig["other"]!)], [...ids], "P-17");
      expect(loaded.peftConfig["other"]!.task_type, "P-17").toBe("CAUSAL_LM");
      same(real.logits(loaded), real.expectedLogits([name]), "P-17");
      dispose(loaded.unload());
      const copies = Object.keys(rows).length;
      const file = own.get("adapter_model.safetensors")!;
      const header = 8 + Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true));
      expect(file.byteLength, "P-18").toBe(header + 4 * HIDDEN * ids.length * copies);
      saved.set(name, { files: own, adapter: { ids, rows, tied: dense.tied }, places: placesOf(peft, name) });
    }
  }),
);

const placesOf = (peft: PeftModel, name: string): string =>
  [...peft.layers()].flatMap(([path, layer]) => (layer.has(name) ? [path] : [])).join();

const fileOf = (name: string, file: string, bytes: Uint8Array): [string, Uint8Array][] => {
  if (name === "default") return file.includes("/") ? [] : [[file, bytes]];
  return file.startsWith(`${name}/`) ? [[file.slice(name.length + 1), bytes]] : [];
};

const load = fc.record({ from: name, name, isTrainable: fc.boolean() }).map(
  ({ from, name, isTrainable }): Command =>
    new Command(`load ${name} from ${from}${isTrainable ? " to train" : ""}`, async (real) => {
      const { peft, dense } = real;
      const source = real.saved.get(from);
      if (!source) return;
      const go = () => peft.loadAdapter(source.files, name, { isTrainable });
      if (dense.adapters.has(name)) return refuses(real, "EXISTS", go);
      const report = await go();
      expect(report).toEqual({ missingKeys: [], unexpectedKeys: [], mismatchedKeys: [] });
      const rows = real.rowsOf(name);
      for (const side of SIDES) same(rows[side], source.adapter.rows[side], "P-17");
      dense.adapters.set(name, { ids: source.adapter.ids, rows, requiresGrad: isTrainable });
    }),
);

export const command: fc.Arbitrary<Command> = fc.oneof(
  { weight: 8, arbitrary: add },
  { weight: 1, arbitrary: addBadly },
  { weight: 2, arbitrary: unknown },
  { weight: 8, arbitrary: set },
  { weight: 2, arbitrary: flag },
  { weight: 2, arbitrary: switches },
  { weight: 7, arbitrary: merge },
  { weight: 3, arbitrary: unmerge },
  { weight: 3, arbitrary: remove },
  { weight: 4, arbitrary: step },
  { weight: 3, arbitrary: save },
  { weight: 3, arbitrary: load },
  { weight: 1, arbitrary: unload },
  { weight: 1, arbitrary: mergeAndUnload },
);
