import fc from "fast-check";
import { expect } from "vitest";
import { Command, IDS, name, names, refuses } from "./commands.ts";
import { type Dense, HIDDEN, SIDES, type Side } from "./dense.ts";
import type { Real } from "./real.ts";
import { same } from "./same.ts";

/** The modules that have an adapter's rows; not those that read them through a tie. */
const placesOf = ({ peft }: Real, adapter: string): string =>
  [...peft.layers()].flatMap(([path, layer]) => (layer.has(adapter) ? [path] : [])).join();

/** True where the adapter, with other ids, would share one with what is in effect beside it. */
function wouldOverlap(dense: Dense, adapter: string, ids: readonly number[]): boolean {
  const own = dense.get(adapter);
  const before = own.ids;
  own.ids = ids;
  const counts = [...new Set([...dense.merged, ...dense.active])];
  const overlaps = counts.includes(adapter) && dense.overlaps(counts);
  own.ids = before;
  return overlaps;
}

const weights = fc.array(fc.constantFrom(1, 0.5, -0.25, 0), { minLength: 3, maxLength: 3 });

/** P-24 */
const combine = fc.record({ names, weights, into: name }).map(
  ({ names, weights, into }) =>
    new Command(
      `combine [${names.join(", ")}] by ${weights.slice(0, names.length).join(", ")} into ${into}`,
      async (real) => {
        const { peft, dense } = real;
        const own = weights.slice(0, names.length);
        const go = () => peft.addWeightedAdapter(names, own, into);
        if (names.length === 0) return refuses(real, "ARGUMENT", go);
        if (!dense.knows(names)) return refuses(real, "UNKNOWN", go);
        if (dense.adapters.has(into)) return refuses(real, "EXISTS", go);
        if (new Set(names.map((n) => placesOf(real, n))).size > 1) return refuses(real, "ARGUMENT", go);
        await go();
        const ids = [...new Set(names.flatMap((n) => dense.get(n).ids))];
        const rows = real.rowsOf(into);
        for (const side of SIDES) checkCombination(dense, side, rows[side], ids, names, own);
        dense.adapters.set(into, { ids, rows, lora: {}, requiresGrad: false });
      },
    ),
);

function checkCombination(
  dense: Dense,
  side: Side,
  rows: Float32Array | undefined,
  ids: readonly number[],
  names: readonly string[],
  weights: readonly number[],
): void {
  same(rows !== undefined, dense.get(names[0]!).rows[side] !== undefined, "sides of a combination");
  if (!rows) return;
  const originals = dense.originals(side, ids);
  rows.forEach((x, i) => {
    const id = ids[Math.floor(i / HIDDEN)]!;
    const expected = names.reduce((sum, n, k) => {
      const slot = dense.get(n).ids.indexOf(id);
      return slot < 0
        ? sum
        : sum + weights[k]! * (dense.get(n).rows[side]![slot * HIDDEN + (i % HIDDEN)]! - originals[i]!);
    }, originals[i]!);
    if (!(Math.abs(x - expected) <= 1e-5 * Math.max(1, Math.abs(expected)))) expect(x, "P-24").toBe(expected);
  });
  if (names.length === 1 && weights[0] === 1) same(rows, dense.get(names[0]!).rows[side], "P-24: a copy");
}

const extend = fc.record({ name, ids: fc.constantFrom(...IDS, [6], [3, 6]) }).map(
  ({ name, ids }) =>
    new Command(`extend ${name} by [${ids.join(", ")}]`, (real) => {
      const { peft, dense } = real;
      const go = () => peft.extendAdapter(name, ids);
      if (!dense.adapters.has(name)) return refuses(real, "UNKNOWN", go);
      if (dense.merged.includes(name)) return refuses(real, "MERGED", go);
      const own = dense.get(name);
      if (ids.some((id) => own.ids.includes(id))) return refuses(real, "INDEX_DUPLICATE", go);
      if (wouldOverlap(dense, name, [...own.ids, ...ids])) return refuses(real, "OVERLAP", go);
      go();
      const rows = real.rowsOf(name);
      for (const side of SIDES) {
        const before = own.rows[side];
        if (!before) continue;
        same(rows[side]!.slice(0, before.length), before, "rows that were there");
        same(rows[side]!.slice(before.length), dense.originals(side, ids), "new rows");
      }
      Object.assign(own, { ids: [...own.ids, ...ids], rows });
      peft.removeTokens(name, ids); // P-26: extending and removing is nothing
      for (const side of SIDES)
        if (own.rows[side]) same(real.rowsOf(name)[side]!.length, own.rows[side].length - ids.length * HIDDEN, "P-26");
      peft.extendAdapter(name, ids);
    }),
);

const removeTokens = fc.record({ name, ids: fc.constantFrom<number[][]>([1], [2], [7], [1, 2], [0, 3], [5, 6]) }).map(
  ({ name, ids }) =>
    new Command(`remove [${ids.join(", ")}] from ${name}`, (real) => {
      const { peft, dense } = real;
      const go = () => peft.removeTokens(name, ids);
      if (!dense.adapters.has(name)) return refuses(real, "UNKNOWN", go);
      if (dense.merged.includes(name)) return refuses(real, "MERGED", go);
      const own = dense.get(name);
      if (ids.some((id) => !own.ids.includes(id))) return refuses(real, "ARGUMENT", go);
      if (own.ids.every((id) => ids.includes(id))) return refuses(real, "INDICES_EMPTY", go);
      go();
      replaceRows(
        real,
        name,
        own.ids.filter((id) => !ids.includes(id)),
        (id) => own.ids.indexOf(id),
      );
    }),
);

/** P-25 */
const remap = fc.record({ name, from: fc.nat(2), to: fc.nat(8) }).map(
  ({ name, from, to }) =>
    new Command(`remap row ${from} of ${name} to ${to}`, (real) => {
      const { peft, dense } = real;
      const own = dense.adapters.get(name);
      const id = own?.ids[from % own.ids.length] ?? 0;
      const go = () => peft.remapTokens(name, new Map([[id, to]]));
      if (!own) return refuses(real, "UNKNOWN", go);
      if (dense.merged.includes(name)) return refuses(real, "MERGED", go);
      if (to !== id && own.ids.includes(to)) return refuses(real, "INDEX_DUPLICATE", go);
      const ids = own.ids.map((old) => (old === id ? to : old));
      if (wouldOverlap(dense, name, ids)) return refuses(real, "OVERLAP", go);
      const before = real.snapshot();
      go();
      if (!wouldOverlap(dense, name, own.ids)) {
        peft.remapTokens(name, new Map([[to, id]]));
        same(real.snapshot(), before, "P-25: there and back");
        go();
      }
      replaceRows(real, name, ids, (_, slot) => slot);
    }),
);

/** The oracle's rows are those that it had, in the places that `slotOf` says; the model's must be the same. */
function replaceRows(
  real: Real,
  name: string,
  ids: readonly number[],
  slotOf: (id: number, slot: number) => number,
): void {
  const own = real.dense.get(name);
  const rows = real.rowsOf(name);
  for (const side of SIDES) {
    const before = own.rows[side];
    if (!before) continue;
    const expected = ids.flatMap((id, slot) => {
      const at = slotOf(id, slot) * HIDDEN;
      return [...before.subarray(at, at + HIDDEN)];
    });
    same(rows[side], Float32Array.from(expected), `rows of ${name}`);
  }
  Object.assign(own, { ids, rows });
}

const hotswap = fc.record({ name, from: name }).map(
  ({ name, from }) =>
    new Command(`swap ${name} for what was saved of ${from}`, async (real) => {
      const { peft, dense } = real;
      const source = real.saved.get(from);
      if (!source) return;
      const go = () => peft.hotswapAdapter(source.files, name);
      if (!dense.adapters.has(name)) return refuses(real, "UNKNOWN", go);
      if (dense.merged.includes(name)) return refuses(real, "MERGED", go);
      const own = dense.get(name);
      const { ids, rows } = source.adapter;
      if (source.places !== placesOf(real, name)) return refuses(real, "ARGUMENT", go);
      if (wouldOverlap(dense, name, ids)) return refuses(real, "OVERLAP", go);
      await go();
      for (const side of SIDES) same(real.rowsOf(name)[side], rows[side], "swapped rows");
      Object.assign(own, { ids, rows: real.rowsOf(name) });
    }),
);

export const edits: fc.Arbitrary<Command> = fc.oneof(combine, extend, removeTokens, remap, hotswap);
