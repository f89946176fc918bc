import { type Expr, add, at, load, mul, op, select, shuffle, sub } from "../asm/expression.ts";
import type { FunctionBuilder, Local } from "../asm/function.ts";
import type { Callee, ModuleBuilder } from "../asm/module.ts";
import { SCRATCH, SCRATCH_BYTES } from "../layoutOfMemory.ts";

/** Queries side by side in a panel [rows, PANEL]: two vectors. */
export const PANEL = 8;
/** Bytes of a row of a panel. */
export const ROW = 4 * PANEL;

/** Queries from row-major memory to panels and back. */
export interface Packing {
  /** (x, width, panel, live, factor): panel[d, i] = x[i, d]·factor for the first `live` rows of x [live, width], 0 beside them. */
  readonly pack: Callee;
  /** (out, width, panel, live, factors): out[i, d] = panel[d, i]·factors[i] for the first `live` queries. */
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
    const [x, width, panel, live, factor] = params as [Local, Local, Local, Local, Local];
    const [d, i, fours] = [f.local("i32"), f.local("i32"), f.local("i32", columnsByFour(width, live))];
    const factors = f.local("v128", op("f32x4.splat", factor));
    f.if(op("i32.lt_s", live, PANEL), () => f.zero(panel, mul(width, ROW)));
    f.for(d, 0, fours, 4, () => {
      for (const half of [0, 4]) {
        const rows = [0, 1, 2, 3].map((j) => load("v128.load", add(at(x, mul(width, 4), half + j), mul(d, 4))));
        transposed(f, rows).forEach((column, j) =>
          f.store("v128.store", at(panel, d, ROW), op("f32x4.mul", column, factors), ROW * j + 4 * half),
        );
      }
    });
    f.for(d, fours, width, 1, () =>
      f.for(i, 0, live, 1, () => {
        const element = load("f32.load", at(x, add(mul(width, i), d), 4));
        f.store("f32.store", add(at(panel, d, ROW), mul(i, 4)), op("f32.mul", element, factor));
      }),
    );
  });
}

function buildUnpack(m: ModuleBuilder): Callee {
  return m.function(["i32", "i32", "i32", "i32", "i32"], (f, ...params) => {
    const [out, width, panel, live, factors] = params as [Local, Local, Local, Local, Local];
    const [d, i, fours] = [f.local("i32"), f.local("i32"), f.local("i32", columnsByFour(width, live))];
    f.for(d, 0, fours, 4, () => {
      for (const half of [0, 4]) {
        const scale = f.local("v128", load("v128.load", factors, 4 * half));
        const columns = [0, 1, 2, 3].map((j) =>
          op("f32x4.mul", load("v128.load", at(panel, d, ROW), ROW * j + 4 * half), scale),
        );
        transposed(f, columns).forEach((row, j) =>
          f.store("v128.store", add(at(out, mul(width, 4), half + j), mul(d, 4)), row),
        );
      }
    });
    f.for(d, fours, width, 1, () =>
      f.for(i, 0, live, 1, () => {
        const element = load("f32.load", add(at(panel, d, ROW), mul(i, 4)));
        f.store(
          "f32.store",
          at(out, add(mul(width, i), d), 4),
          op("f32.mul", element, load("f32.load", at(factors, i, 4))),
        );
      }),
    );
  });
}

/** The part of temporary memory that belongs to the thread with this scratch memory. */
export const ownPart = (temporary: Expr, bytes: Expr, scratch: Expr): Expr =>
  at(temporary, bytes, op("i32.div_u", sub(scratch, SCRATCH), SCRATCH_BYTES));
