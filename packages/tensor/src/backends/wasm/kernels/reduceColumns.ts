import { add, at, f32x4, i32, mul, op, smaller, sub } from "../asm/expression.ts";
import type { Local } from "../asm/function.ts";
import type { PlainOp } from "../asm/opcodes.ts";
import type { ModuleDefinition } from "../engine.ts";
import { Vectors } from "../vectors.ts";

/** Columns at most that are reduced together: long pieces of rows read faster, but what they add up to should stay in cache. */
export const MOST_COLUMNS = 2048;
/** Rows that are reduced by themselves, in ascending order, before their result joins the others'. */
const ROW_BLOCK = 256;

const COMBINE: { readonly [name: string]: { readonly start: number; readonly step: PlainOp } } = {
  sum: { start: 0, step: "f32x4.add" },
  max: { start: -Infinity, step: "f32x4.max" },
  min: { start: Infinity, step: "f32x4.min" },
};

/** Kernels over x [outer, n, inner] → [outer, inner]; an item is a block of columns. */
export const COLUMNS: ModuleDefinition = {
  build(m, { madd }) {
    for (const [name, { start, step }] of Object.entries(COMBINE)) {
      m.kernel(
        name,
        { out: "i32", x: "i32", n: "i32", inner: "i32", columns: "i32", blocks: "i32" },
        (f, { out, x, n, inner, columns, blocks, from, to, scratch }) => {
          // two vectors and four rows: ten registers
          const v = new Vectors(f, 2, madd);
          const item = f.local("i32");
          f.for(item, from, to, 1, () => {
            const first = f.local("i32", mul(op("i32.rem_u", item, blocks), columns));
            const o = f.local("i32", op("i32.div_u", item, blocks));
            const width = smaller(f.local("i32", sub(inner, first)), columns);
            const bytes = f.local("i32", mul(width, 4));
            const [total, part] = [scratch, f.local("i32", add(scratch, 4 * MOST_COLUMNS))];
            fill(v, total, bytes, start);
            const row = f.local("i32", at(x, add(mul(mul(o, n), inner), first), 4));
            const j = f.local("i32");
            f.for(j, 0, n, ROW_BLOCK, () => {
              const rows = f.local("i32", smaller(f.local("i32", sub(n, j)), f.local("i32", i32(ROW_BLOCK))));
              fill(v, part, bytes, start);
              reduceRows(v, { step, part, bytes, row, rows, rowBytes: f.local("i32", mul(inner, 4)) });
              const [p, q] = [f.local("i32", total), f.local("i32", part)];
              v.walk(p, f.local("i32", add(p, bytes)), [q], (u) => u.store(p, u.apply(step, u.load(p), u.load(q))));
            });
            f.copy(at(out, add(mul(o, inner), first), 4), total, bytes);
          });
        },
      );
    }
  },
};

function fill(v: Vectors, start: Local, bytes: Local, value: number): void {
  const p = v.f.local("i32", start);
  v.walk(p, v.f.local("i32", add(p, bytes)), [], (u) =>
    u.store(
      p,
      u.each(() => f32x4(value)),
    ),
  );
}

interface Rows {
  readonly step: PlainOp;
  /** Where the result lies, `bytes` long, and where the rows begin, which moves past them. */
  readonly part: Local;
  readonly bytes: Local;
  readonly row: Local;
  readonly rows: Local;
  readonly rowBytes: Local;
}

/** Adds rows to `part` one after the other, four in a pass. */
function reduceRows(v: Vectors, { step, part, bytes, row, rows, rowBytes }: Rows): void {
  const { f } = v;
  const pass = (count: number): void => {
    const p = f.local("i32", part);
    const pointers = Array.from({ length: count }, () => {
      const q = f.local("i32", row);
      f.advance(row, rowBytes);
      return q;
    });
    v.walk(p, f.local("i32", add(p, bytes)), pointers, (u) =>
      u.store(
        p,
        pointers.reduce((sum, q) => u.apply(step, sum, u.load(q)), u.load(p)),
      ),
    );
  };
  const i = f.local("i32");
  const fours = f.local("i32", op("i32.and", rows, -4));
  f.for(i, 0, fours, 4, () => pass(4));
  f.for(i, fours, rows, 1, () => pass(1));
}
