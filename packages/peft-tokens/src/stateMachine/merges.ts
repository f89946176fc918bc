import fc from "fast-check";
import { expect } from "vitest";
import { Command, fits, names, refuses } from "./commands.ts";
import type { Real } from "./real.ts";
import { near, same } from "./same.ts";

interface MergeArguments {
  readonly names: readonly string[] | undefined;
  readonly fits: boolean;
  readonly safeMerge: boolean;
  readonly untie: boolean;
}
const mergeArguments: fc.Arbitrary<MergeArguments> = fc.record({
  names: fc.option(names, { nil: undefined, freq: 3 }),
  fits,
  safeMerge: fc.boolean(),
  untie: fc.boolean(),
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
      if (dense.effective.length === inEffect) (dense.isNear(list) ? near : same)(real.logits(), before, "P-6");
      const once = [real.storedTables(), real.storedLinears()];
      await go();
      same([real.storedTables(), real.storedLinears()], once, "P-14: merging again");
    }),
);

const unmerge = fc.constant(
  new Command("unmerge", (real) => {
    real.peft.unmergeAdapter();
    real.dense.merged = [];
    same(real.storedTables(), real.dense.tables, "P-3, P-14");
    same(real.storedLinears(), real.dense.linears, "P-3, P-14");
  }),
);

const unload = fc.constant(
  new Command("unload", (real) => {
    expect(real.peft.unload()).toBe(real.base);
    same(real.storedTables(), real.dense.tables, "P-20");
    same(real.storedLinears(), real.dense.linears, "P-20");
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
      const written = [...new Set([...dense.merged, ...list])];
      real.checkStoredLinears(written, "merged weights, P-20");
      dense.tables = dense.tablesWith(written);
      dense.linears = real.storedLinears();
      same(real.storedTables(), dense.tables, "merged tables");
      real.wrap();
    }),
);

export const merges: fc.Arbitrary<Command> = fc.oneof(
  { weight: 7, arbitrary: merge },
  { weight: 3, arbitrary: unmerge },
  { weight: 1, arbitrary: unload },
  { weight: 1, arbitrary: mergeAndUnload },
);
