import type { View } from "../../../backend.ts";
import { type Expr, add, at, load, mul, op, select, shuffle, sub } from "../asm/expression.ts";
import type { FunctionBuilder, Local } from "../asm/function.ts";
import type { Callee, ModuleBuilder } from "../asm/module.ts";
import { Vectors } from "../vectors.ts";
import { SCRATCH, SCRATCH_BYTES } from "../layoutOfMemory.ts";

/** Queries side by side in a panel [rows, PANEL]: two vectors. */
export const PANEL = 8;
/** Bytes of a row of a panel. */
export const ROW = 4 * PANEL;

/** Bytes of the addresses of a panel's rows. */
export const ADDRESSES = 4 * PANEL;

/** Queries from rows anywhere to panels and back. */
export interface Packing {
  /** (rows, width, panel, live, factor): panel[d, i] = rows[i][d]·factor for the first `live` of the addresses `rows`, 0 beside them. */
  readonly pack: Callee;
  /** (rows, width, panel, live, factors): rows[i][d] = panel[d, i]·factors[i] for the first `live` queries. */
  readonly unpack: Callee;
}

export const buildPacking = (m: ModuleBuilder): Packing => ({ pack: buildPack(m), unpack: buildUnpack(m) });

/** The transpose of a 4 × 4 matrix. */
export function transposed(f: FunctionBuilder, rows: readonly Expr[]): Expr[] {
  const [a, b, c, d] = rows.map((row) => f.local("v128", row)) as [Local, Local, Local, Local];
  const pairs = [
    shuffle(a, b, 0, 4, 1, 5),
    shuffle(c, d, 0, 4, 1, 5),
    shuffle(a, b, 2, 6, 3, 7),
    shuffle(c, d, 2, 6, 3, 7),
  ];
  const [ab01, cd01, ab23, cd23] = pairs.map((pair) => f.local("v128", pair)) as [Local, Local, Local, Local];
  return [
    shuffle(ab01, cd01, 0, 1, 4, 5),
    shuffle(ab01, cd01, 2, 3, 6, 7),
    shuffle(ab23, cd23, 0, 1, 4, 5),
    shuffle(ab23, cd23, 2, 3, 6, 7),
  ];
}

/** Columns that go four by four: those of a full panel. */
const columnsByFour = (width: Expr, live: Expr): Expr =>
  select(op("i32.eq", live, PANEL), op("i32.and", width, -4), { type: "i32", code: [0x41, 0] });

function buildPack(m: ModuleBuilder): Callee {
  return m.function(["i32", "i32", "i32", "i32", "f32"], (f, ...params) => {
    const [addresses, width, panel, live, factor] = params as [Local, Local, Local, Local, Local];
    const [d, i, fours] = [f.local("i32"), f.local("i32"), f.local("i32", columnsByFour(width, live))];
    const factors = f.local("v128", op("f32x4.splat", factor));
    f.if(op("i32.lt_s", live, PANEL), () => f.zero(panel, mul(width, ROW)));
    f.for(d, 0, fours, 4, () => {
      for (const half of [0, 4]) {
        const rows = [0, 1, 2, 3].map((j) => load("v128.load", at(load("i32.load", addresses, 4 * (half + j)), d, 4)));
        transposed(f, rows).forEach((column, j) =>
          f.store("v128.store", at(panel, d, ROW), op("f32x4.mul", column, factors), ROW * j + 4 * half),
        );
      }
    });
    f.for(d, fours, width, 1, () =>
      f.for(i, 0, live, 1, () => {
        const element = load("f32.load", at(load("i32.load", at(addresses, i, 4)), d, 4));
        f.store("f32.store", add(at(panel, d, ROW), mul(i, 4)), op("f32.mul", element, factor));
      }),
    );
  });
}

function buildUnpack(m: ModuleBuilder): Callee {
  return m.function(["i32", "i32", "i32", "i32", "i32"], (f, ...params) => {
    const [addresses, width, panel, live, factors] = params as [Local, Local, Local, Local, Local];
    const [d, i, fours] = [f.local("i32"), f.local("i32"), f.local("i32", columnsByFour(width, live))];
    f.for(d, 0, fours, 4, () => {
      for (const half of [0, 4]) {
        const scale = f.local("v128", load("v128.load", factors, 4 * half));
        const columns = [0, 1, 2, 3].map((j) =>
          op("f32x4.mul", load("v128.load", at(panel, d, ROW), ROW * j + 4 * half), scale),
        );
        transposed(f, columns).forEach((row, j) =>
          f.store("v128.store", at(load("i32.load", addresses, 4 * (half + j)), d, 4), row),
        );
      }
    });
    f.for(d, fours, width, 1, () =>
      f.for(i, 0, live, 1, () => {
        const element = load("f32.load", add(at(panel, d, ROW), mul(i, 4)));
        f.store(
          "f32.store",
          at(load("i32.load", at(addresses, i, 4)), d, 4),
          op("f32.mul", element, load("f32.load", at(factors, i, 4))),
        );
      }),
    );
  });
}

/** The part of temporary memory that belongs to the thread with this scratch memory. */
export const ownPart = (temporary: Expr, bytes: Expr, scratch: Expr): Expr =>
  at(temporary, bytes, op("i32.div_u", sub(scratch, SCRATCH), SCRATCH_BYTES));

/** Strides in bytes, from a batch, a head, a row of x [B, H, T, D] to the next. */
export const stepsOf = ({ layout: { strides } }: View): number[] => strides.slice(0, 3).map((stride) => 4 * stride);

/** addresses[i] = x + ((query + i) mod group)·headStep + ⌊(query + i) / group⌋·rowStep for the first `live` rows of a panel. */
export function addressRows(
  f: FunctionBuilder,
  addresses: Expr,
  x: Expr,
  query: Expr,
  group: Expr,
  live: Expr,
  { headStep, rowStep }: { readonly headStep: Expr; readonly rowStep: Expr },
): void {
  const [i, row] = f.locals(2, "i32") as [Local, Local];
  f.for(i, 0, live, 1, () => {
    f.set(row, add(query, i));
    const own = at(at(x, op("i32.rem_u", row, group), headStep), op("i32.div_u", row, group), rowStep);
    f.store("i32.store", at(addresses, i, 4), own);
  });
}

/** (x, step, width, out, n): out [n, width] = the n rows of `width` float32 that lie `step` bytes apart from x on. */
export function buildGather(m: ModuleBuilder): Callee {
  return m.function(["i32", "i32", "i32", "i32", "i32"], (f, ...params) => {
    const [x, step, width, out, n] = params as [Local, Local, Local, Local, Local];
    const [i, p, end] = f.locals(3, "i32") as [Local, Local, Local];
    const v = new Vectors(f, 2, false);
    f.for(i, 0, n, 1, () => {
      f.set(p, x);
      f.set(end, at(p, width, 4));
      v.walk(p, end, [out], (u) => u.store(out, u.load(p)));
      f.advance(x, step);
    });
  });
}
