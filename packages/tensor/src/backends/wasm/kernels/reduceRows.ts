import { type Expr, add, at, f32, f32x4, i32, load, mul, op, select, smaller, sub } from "../asm/expression.ts";
import type { FunctionBuilder, Local } from "../asm/function.ts";
import type { ModuleDefinition } from "../engine.ts";
import { Vectors } from "../vectors.ts";

/** Elements that are summed sixteen side by side, one after the other: so few that rounding stays small. */
const PART = 256;
/** Parts are summed the same way up to a block, in float32; blocks in float64. */
const BLOCK = 16 * PART;
/** Elements whose sum is computed by itself, so that threads can share a row and give the bytes of one. */
export const CHUNK = 4 * BLOCK;

/** Kernels over rows of n float32: items are rows, or chunks of rows. */
export const ROWS: ModuleDefinition = {
  build(m, { madd }) {
    const row = { out: "i32", x: "i32", n: "i32" } as const;
    m.kernel("sum", row, (f, { out, x, n, from, to }) => {
      const v = new Vectors(f, 4, madd);
      forEachRow(f, [from, to], x, n, (i, p, end) => {
        const total = f.local("f64", ZERO);
        f.while(p, end, 0, [], () => f.set(total, op("f64.add", total, chunkSum(f, v, p, end))));
        f.store("f32.store", at(out, i, 4), op("f32.demote_f64", total));
      });
    });
    m.kernel("total", row, (f, { out, x, n, from, to }) => {
      const i = f.local("i32");
      f.for(i, from, to, 1, () => {
        const [p, total] = [f.local("i32", at(x, i, mul(n, 8))), f.local("f64", ZERO)];
        f.while(p, f.local("i32", add(p, mul(n, 8))), 8, [], () =>
          f.set(total, op("f64.add", total, load("f64.load", p))),
        );
        f.store("f32.store", at(out, i, 4), op("f32.demote_f64", total));
      });
    });
    m.kernel("sum of chunks", { ...row, chunks: "i32" }, (f, { out, x, n, chunks, from, to }) => {
      const v = new Vectors(f, 4, madd);
      forEachChunk(f, [from, to], x, n, chunks, (i, p, end) =>
        f.store("f64.store", at(out, i, 8), chunkSum(f, v, p, end)),
      );
    });
    for (const name of ["max", "min"] as const) {
      m.kernel(name, row, (f, { out, x, n, from, to }) => {
        const v = new Vectors(f, 4, madd);
        forEachRow(f, [from, to], x, n, (i, p, end) => f.store("f32.store", at(out, i, 4), extreme(v, name, p, end)));
      });
      m.kernel(`${name} of chunks`, { ...row, chunks: "i32" }, (f, { out, x, n, chunks, from, to }) => {
        const v = new Vectors(f, 4, madd);
        forEachChunk(f, [from, to], x, n, chunks, (i, p, end) =>
          f.store("f32.store", at(out, i, 4), extreme(v, name, p, end)),
        );
      });
    }
    m.kernel("argmax", row, (f, { out, x, n, from, to }) => {
      const v = new Vectors(f, 4, madd);
      forEachRow(f, [from, to], x, n, (i, p, end) => {
        const start = f.local("i32", p);
        const largest = f.local("f32", extreme(v, "max", p, end));
        f.set(p, start);
        find(f, p, end, largest);
        f.store("i32.store", at(out, i, 4), op("i32.shr_u", sub(p, start), 2));
      });
    });
  },
};

const ZERO = op("f64.promote_f32", f32(0));

type Body = (item: Local, p: Local, end: Local) => void;

/** Rows of n elements from `x` on; `body` may move p. */
function forEachRow(f: FunctionBuilder, [from, to]: readonly [Local, Local], x: Local, n: Local, body: Body): void {
  const i = f.local("i32");
  f.for(i, from, to, 1, () => {
    const p = f.local("i32", at(x, i, mul(n, 4)));
    body(i, p, f.local("i32", add(p, mul(n, 4))));
  });
}

/** Chunks of rows, `chunks` for each row. */
function forEachChunk(
  f: FunctionBuilder,
  [from, to]: readonly [Local, Local],
  x: Local,
  n: Local,
  chunks: Local,
  body: Body,
): void {
  const i = f.local("i32");
  f.for(i, from, to, 1, () => {
    const first = f.local("i32", mul(op("i32.rem_u", i, chunks), CHUNK));
    const p = f.local("i32", at(x, add(mul(op("i32.div_u", i, chunks), n), first), 4));
    const length = smaller(f.local("i32", sub(n, first)), f.local("i32", i32(CHUNK)));
    body(i, p, f.local("i32", add(p, mul(length, 4))));
  });
}

/** The sum of a chunk from p on, or of what is left of the row before `end`, as f64; p moves past it. */
function chunkSum(f: FunctionBuilder, v: Vectors, p: Local, end: Local): Expr {
  const total = f.local("f64", ZERO);
  const stop = f.local("i32", nearer(f, p, CHUNK, end));
  f.while(p, stop, 0, [], () => {
    const block = v.zeros();
    const blockEnd = f.local("i32", nearer(f, p, BLOCK, stop));
    f.while(p, blockEnd, 0, [], () => {
      const part = v.zeros();
      v.walk(p, f.local("i32", nearer(f, p, PART, blockEnd)), [], (u) => u.assign(part, u.add(u.load(p), part)));
      v.assign(block, v.add(block, part));
    });
    f.set(total, op("f64.add", total, op("f64.promote_f32", v.total(block))));
  });
  return total;
}

/** The address n float32 behind p, or `end` where that is nearer. */
function nearer(f: FunctionBuilder, p: Local, n: number, end: Local): Expr {
  const far = f.local("i32", add(p, 4 * n));
  return select(op("i32.lt_u", sub(end, p), 4 * n), end, far);
}

/** The largest or smallest element of [p, end), as f32; NaN wins. */
function extreme(v: Vectors, name: "max" | "min", p: Local, end: Local): Expr {
  const start = name === "max" ? -Infinity : Infinity;
  const best = v.each(() => f32x4(start));
  const nan = v.zeros();
  v.walk(p, end, [], (u) => {
    const x = u.load(p, { fill: start });
    u.assign(nan, u.apply("v128.or", u.apply("f32x4.ne", x, x), nan)); // cheaper than f32x4.max, which lets NaN win
    u.assign(best, u.apply(name === "max" ? "f32x4.pmax" : "f32x4.pmin", best, x));
  });
  const anyNan = nan.reduce<Expr>((all, lanes) => op("v128.or", all, lanes), nan[0]!);
  return select(op("v128.any_true", anyNan), f32(NaN), name === "max" ? v.largest(best) : v.smallest(best));
}

/** Moves p to the first NaN or `value` in [p, end), which must be there. */
function find(f: FunctionBuilder, p: Local, end: Local, value: Local): void {
  const four = f.local("v128", op("f32x4.splat", value));
  const last = f.local("i32", sub(end, 16));
  const found = (x: Expr): Expr => op("v128.or", op("f32x4.eq", x, four), op("f32x4.ne", x, x));
  f.block(() => {
    f.while(p, add(last, 1), 16, [], () =>
      f.leaveIf(op("v128.any_true", found(f.local("v128", load("v128.load", p)))), 2),
    );
  });
  f.block(() => {
    f.while(p, end, 4, [], () => {
      const x = f.local("f32", load("f32.load", p));
      f.leaveIf(op("i32.or", op("f32.eq", x, value), op("f32.ne", x, x)), 2);
    });
  });
}
