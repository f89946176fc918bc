import { type Expr, add, at, i32, load, mul, op, smaller, sub } from "../asm/expression.ts";
import type { FunctionBuilder, Local } from "../asm/function.ts";
import type { Callee, ModuleBuilder } from "../asm/module.ts";
import type { TileName } from "../gemm/tiles.ts";
import { multiplyAdd } from "../vectors.ts";
import { PANEL, ROW } from "./panels.ts";

/** Rows of `a` that one pass of `mix` reads, so that they stay in the first cache: 5% faster at [4096, 64]. */
const MIX_ROWS = 256;

/** The matrix products of attention. Every element is one sum in ascending order: its bytes depend on nothing else. */
export interface Products {
  /** (a, width, panel, out, n): out[r, 8] = Σ_d a[r, d]·panel[d, 8] for n rows of a [n, width]. */
  readonly dots: Callee;
  /** (a, width, panel, out, n): out[e, 8] = Σ_r a[r, e]·panel[r, 8] over n rows of a [n, width]. */
  readonly mix: Callee;
  /** (panels, panelBytes, b, width, out, n, count): out[r, e] += Σ_i panels[⌊i/8⌋][r, i mod 8]·b[i, e] for n rows r, i < count. */
  readonly outer: Callee;
}

/** Rows, or columns, of a tile of eight queries: 4 fill the registers of 128 bits, 8 those of 256. */
export type TileRows = 4 | 8;
/** The rows of attention's tiles where this tile of matrix products is the fastest; all give the same bytes. */
export const tileRowsOf = (fastest: TileName): TileRows => (fastest === "6x16" ? 8 : 4);

export const buildProducts = (m: ModuleBuilder, madd: boolean, rows: TileRows): Products => ({
  dots: buildDots(m, madd, rows),
  mix: buildMix(m, madd, rows),
  outer: buildOuter(m, madd, rows),
});

/**
 * Repeats `unroll` steps until `over(i)` holds before step i. The exits between steps end V8's basic blocks: TurboFan puts all loads
 * of a block first, and spills accumulators for them. `advance` runs after a round and says whether another follows.
 */
function rounds(
  f: FunctionBuilder,
  unroll: number,
  over: (i: number) => Expr,
  step: (i: number) => void,
  advance: () => Expr,
): void {
  f.block(() =>
    f.repeat(() => {
      for (let i = 0; i < unroll; i++) {
        if (i > 0) f.leaveIf(over(i), 1);
        step(i);
      }
      return advance();
    }),
  );
}

/** sums[i, j] += xs[i]·ys[j] */
function accumulate(
  f: FunctionBuilder,
  madd: boolean,
  sums: readonly Local[],
  xs: readonly Expr[],
  ys: readonly Expr[],
): void {
  const columns = ys.map((y) => f.local("v128", y));
  xs.forEach((x, i) => {
    const scalar = f.local("v128", x);
    columns.forEach((y, j) => {
      const sum = sums[i * ys.length + j]!;
      f.set(sum, multiplyAdd(madd, scalar, y, sum));
    });
  });
}

const count = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
const splatAt = (p: Expr, offset: number): Expr => load("v128.load32_splat", p, offset);
const panelRow = (panel: Expr, offset: number): Expr[] =>
  [0, 16].map((half) => load("v128.load", panel, offset + half));

/** Runs `each` for as many rows, or columns, as the first size has, then for what is left by the next sizes; the last is 1. */
function byTiles(f: FunctionBuilder, i: Local, n: Local, sizes: readonly number[], each: (size: number) => void): void {
  let from: Expr = i32(0);
  for (const size of sizes) {
    const to = f.local("i32", op("i32.and", n, -size));
    f.for(i, from, to, size, () => each(size));
    from = to;
  }
}

/** The sizes of tiles, largest first, with what builds each. */
function tilesOf(
  rows: TileRows,
  build: (rows: number) => Callee,
): { sizes: number[]; of: ReadonlyMap<number, Callee> } {
  const sizes = [8, 4, 1].filter((size) => size <= rows);
  return { sizes, of: new Map(sizes.map((size) => [size, build(size)])) };
}

function buildDots(m: ModuleBuilder, madd: boolean, most: TileRows): Callee {
  const unroll = 4;
  const tile = (rows: number): Callee =>
    m.function(["i32", "i32", "i32", "i32", "i32"], (f, ...params) => {
      const [a, stride, panel, end, out] = params as [Local, Local, Local, Local, Local];
      const sums = f.locals(2 * rows, "v128");
      const as = [a];
      while (as.length < rows) as.push(f.local("i32", add(as.at(-1)!, stride)));
      rounds(
        f,
        unroll,
        (i) => op("i32.eq", add(panel, ROW * i), end),
        (i) =>
          accumulate(
            f,
            madd,
            sums,
            as.map((p) => splatAt(p, 4 * i)),
            panelRow(panel, ROW * i),
          ),
        () => {
          for (const p of as) f.advance(p, 4 * unroll);
          f.advance(panel, ROW * unroll);
          return op("i32.lt_u", panel, end);
        },
      );
      sums.forEach((sum, i) => f.store("v128.store", out, sum, 16 * i));
    });
  const { sizes, of } = tilesOf(most, tile);
  return m.function(["i32", "i32", "i32", "i32", "i32"], (f, ...params) => {
    const [a, width, panel, out, n] = params as [Local, Local, Local, Local, Local];
    const [stride, end] = [f.local("i32", mul(width, 4)), f.local("i32", at(panel, width, ROW))];
    const r = f.local("i32");
    byTiles(f, r, n, sizes, (size) => {
      f.call(of.get(size)!, at(a, r, stride), stride, panel, end, at(out, r, i32(ROW)));
    });
  });
}

function buildMix(m: ModuleBuilder, madd: boolean, most: TileRows): Callee {
  const unroll = 4;
  const tile = (columns: number): Callee =>
    m.function(["i32", "i32", "i32", "i32", "i32"], (f, ...params) => {
      const [a, stride, panel, end, out] = params as [Local, Local, Local, Local, Local];
      const sums = count(2 * columns).map((i) => f.local("v128", load("v128.load", out, 16 * i)));
      rounds(
        f,
        unroll,
        (i) => op("i32.eq", add(panel, ROW * i), end),
        (i) => {
          accumulate(
            f,
            madd,
            sums,
            count(columns).map((e) => splatAt(a, 4 * e)),
            panelRow(panel, ROW * i),
          );
          f.advance(a, stride);
        },
        () => {
          f.advance(panel, ROW * unroll);
          return op("i32.lt_u", panel, end);
        },
      );
      sums.forEach((sum, i) => f.store("v128.store", out, sum, 16 * i));
    });
  const { sizes, of } = tilesOf(most, tile);
  return m.function(["i32", "i32", "i32", "i32", "i32"], (f, ...params) => {
    const [a, width, panel, out, n] = params as [Local, Local, Local, Local, Local];
    const stride = f.local("i32", mul(width, 4));
    const [r, e, rows, end] = f.locals(4, "i32") as [Local, Local, Local, Local];
    f.zero(out, mul(width, ROW));
    f.for(r, 0, n, MIX_ROWS, () => {
      f.set(rows, sub(n, r));
      f.set(rows, smaller(rows, i32(MIX_ROWS)));
      f.set(end, at(panel, rows, ROW));
      byTiles(f, e, width, sizes, (size) => {
        f.call(of.get(size)!, at(a, e, 4), stride, panel, end, at(out, e, ROW));
      });
      f.set(panel, end);
      f.set(a, at(a, rows, stride));
    });
  });
}

function buildOuter(m: ModuleBuilder, madd: boolean, most: TileRows): Callee {
  /** Columns come as one vector each time four, or as one lane. */
  const tile = (rows: number, vectors: number | "lane"): Callee =>
    m.function(["i32", "i32", "i32", "i32", "i32", "i32"], (f, ...params) => {
      const [panels, panelBytes, b, stride, out, left] = params as [Local, Local, Local, Local, Local, Local];
      const outs = [out];
      while (outs.length < rows) outs.push(f.local("i32", add(outs.at(-1)!, stride)));
      const columns = vectors === "lane" ? [0] : count(vectors).map((j) => 16 * j);
      const read = vectors === "lane" ? "v128.load32_zero" : "v128.load";
      const sums = outs.flatMap((p) => columns.map((offset) => f.local("v128", load(read, p, offset))));
      rounds(
        f,
        PANEL,
        (i) => op("i32.eq", left, i),
        (i) => {
          const scalars = outs.map((_, r) => splatAt(panels, ROW * r + 4 * i));
          accumulate(
            f,
            madd,
            sums,
            scalars,
            columns.map((offset) => load(read, b, offset)),
          );
          f.advance(b, stride);
        },
        () => {
          f.advance(panels, panelBytes);
          f.advance(left, -PANEL);
          return op("i32.gt_s", left, 0);
        },
      );
      sums.forEach((sum, i) => {
        const p = outs[Math.floor(i / columns.length)]!;
        if (vectors === "lane") f.storeLane("v128.store32_lane", p, sum, 0);
        else f.store("v128.store", p, sum, columns[i % columns.length]);
      });
    });
  const { sizes, of: wide } = tilesOf(most, (rows) => tile(rows, 2));
  const { of: narrow } = tilesOf(most, (rows) => tile(rows, "lane"));
  return m.function(["i32", "i32", "i32", "i32", "i32", "i32", "i32"], (f, ...params) => {
    const [panels, panelBytes, b, width, out, n, queries] = params as [Local, Local, Local, Local, Local, Local, Local];
    const stride = f.local("i32", mul(width, 4));
    const [r, e] = f.locals(2, "i32") as [Local, Local];
    byTiles(f, r, n, sizes, (rows) =>
      byTiles(f, e, width, [PANEL, 1], (columns) => {
        const to = add(at(out, r, stride), mul(e, 4));
        f.call(
          (columns === 1 ? narrow : wide).get(rows)!,
          at(panels, r, ROW),
          panelBytes,
          at(b, e, 4),
          stride,
          to,
          queries,
        );
      }),
    );
  });
}
