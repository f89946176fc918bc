import { type Expr, add, at, i32, mul, op } from "../asm/expression.ts";
import type { FunctionBuilder, Local } from "../asm/function.ts";
import type { Callee, ModuleBuilder } from "../asm/module.ts";
import type { ModuleDefinition } from "../engine.ts";
import type { FloatDType } from "../widening.ts";
import { type Tile, columnsOf, microkernel } from "./microkernel.ts";
import { type Order, PHASES, packer, remaining, stepsOf } from "./pack.ts";

/**
 * Steps of k in one block. A sum is made block by block, in a block phase by phase (k mod PHASES), each ascending, on every path:
 * four phases are a vector of what the product of one row reads anyway (gemv.ts). Phases of 256 to 768 steps are within 3 %.
 */
export const K_BLOCK = 1536;
/** Columns of B that are packed together and used while they are in the cache. */
export const N_BLOCK = 64;

/** Packs row panels of A for a block of k: item i is panel i, panels follow each other. */
export const packLeft = (tile: Tile, dtype: FloatDType, order: Order): ModuleDefinition => ({
  build(m) {
    const pack = packer(m, tile.rows, dtype, order);
    m.kernel(
      "packLeft",
      { packed: "i32", a: "i32", rowStep: "i32", kStep: "i32", rows: "i32", k: "i32" },
      (f, { packed, a, rowStep, kStep, rows, k, from, to }) => {
        const panel = f.local("i32");
        const panelBytes = f.local("i32", mul(stepsOf(k), 4 * PHASES * tile.rows));
        f.for(panel, from, to, 1, () => {
          const row = f.local("i32", mul(panel, tile.rows));
          const count = remaining(f, rows, row, tile.rows);
          f.call(pack, at(packed, panel, panelBytes), at(a, row, rowStep), rowStep, kStep, k, count);
        });
      },
    );
  },
});

/**
 * C = A·B, or C += A·B where `accumulate` is not 0, for a block of k, at most K_BLOCK steps: A packed by packLeft, B [k, n] of any
 * steps, rows of C contiguous. Item i is column block i mod `columnBlocks` of row block i div `columnBlocks`; a row block has
 * `blockRows` rows, a multiple of the tile's.
 */
export const gemm = (tile: Tile, dtype: FloatDType, order: Order): ModuleDefinition => ({
  build(m, { madd }) {
    const pack = packer(m, columnsOf(tile), dtype, order);
    const kernels = Array.from({ length: tile.rows }, (_, i) => microkernel(m, tile, i + 1, madd));
    const multiply = panelTimesPanels(m, tile, kernels);
    m.kernel(
      "gemm",
      {
        packed: "i32",
        b: "i32",
        c: "i32",
        rows: "i32",
        columns: "i32",
        k: "i32",
        columnStep: "i32",
        kStep: "i32",
        cStep: "i32",
        columnBlocks: "i32",
        blockRows: "i32",
        accumulate: "i32",
      },
      (f, args) => {
        const { packed, b, c, rows, columns, k, columnStep, kStep, cStep, columnBlocks, blockRows, accumulate } = args;
        const { from, to, scratch } = args;
        const [item, panel] = f.locals(2, "i32") as [Local, Local];
        const tileColumns = columnsOf(tile);
        const edge = f.local("i32", add(scratch, 4 * K_BLOCK * (N_BLOCK + tileColumns))); // a tile of C that hangs over the right edge
        const steps = f.local("i32", stepsOf(k));
        f.for(item, from, to, 1, () => {
          const column = f.local("i32", mul(op("i32.rem_u", item, columnBlocks), N_BLOCK));
          const row = f.local("i32", mul(op("i32.div_u", item, columnBlocks), blockRows));
          const columnCount = remaining(f, columns, column, N_BLOCK);
          const lastRow = f.local("i32", add(row, blockRows));
          f.if(op("i32.gt_s", lastRow, rows), () => f.set(lastRow, rows));
          f.for(panel, 0, columnCount, tileColumns, () => {
            const count = remaining(f, columnCount, panel, tileColumns);
            f.call(pack, scratch, at(b, add(column, panel), columnStep), columnStep, kStep, k, count);
            const target = at(add(c, mul(add(column, panel), 4)), row, cStep);
            f.call(multiply, packed, scratch, target, cStep, row, lastRow, steps, accumulate, count, edge);
          });
        });
      },
    );
  },
});

/** (A, B, C, cStep, first row, last row, steps, accumulate, columns, edge): one panel of B with all row panels of A. */
function panelTimesPanels(m: ModuleBuilder, tile: Tile, kernels: readonly Callee[]): Callee {
  const params = Array.from({ length: 10 }, () => "i32" as const);
  return m.function(params, (f, ...args) => {
    const [a, b, c, cStep, first, last, k, accumulate, columns, edge] = args as [
      Local,
      Local,
      Local,
      Local,
      Local,
      Local,
      Local,
      Local,
      Local,
      Local,
    ];
    const row = f.local("i32");
    const edgeStep = 4 * columnsOf(tile);
    f.set(a, add(a, mul(mul(first, k), 4 * PHASES)));
    f.for(row, first, last, tile.rows, () => {
      const count = remaining(f, last, row, tile.rows);
      f.if(
        op("i32.eq", columns, columnsOf(tile)),
        () => callFor(f, kernels, count, [k, a, b, c, cStep, accumulate]),
        () => {
          const there = { address: c, step: cStep };
          const here = { address: edge, step: i32(edgeStep) };
          f.if(accumulate, () => copyEdge(f, here, there, count, columns));
          callFor(f, kernels, count, [k, a, b, edge, i32(edgeStep), accumulate]);
          copyEdge(f, there, here, count, columns);
        },
      );
      f.set(a, add(a, mul(k, 4 * PHASES * tile.rows)));
      f.set(c, add(c, mul(cStep, tile.rows)));
    });
  });
}

/** Calls the kernel for `count` rows, from 1 to as many as there are kernels. */
function callFor(f: FunctionBuilder, kernels: readonly Callee[], count: Local, args: readonly Expr[]): void {
  const all = kernels.length;
  f.if(
    op("i32.eq", count, all),
    () => f.call(kernels[all - 1]!, ...args),
    () => {
      for (let rows = 1; rows < all; rows++) f.if(op("i32.eq", count, rows), () => f.call(kernels[rows - 1]!, ...args));
    },
  );
}

interface Edge {
  readonly address: Expr;
  readonly step: Expr;
}

/** to[i, j] = from[i, j] for rows × columns elements. */
function copyEdge(f: FunctionBuilder, to: Edge, from: Edge, rows: Local, columns: Local): void {
  const i = f.local("i32");
  f.for(i, 0, rows, 1, () => f.copy(at(to.address, i, to.step), at(from.address, i, from.step), mul(columns, 4)));
}

/** Floats that a block of A takes when packed. */
export const packedLength = (tile: Tile, rows: number, k: number): number =>
  Math.ceil(rows / tile.rows) * tile.rows * Math.ceil(k / PHASES) * PHASES;
