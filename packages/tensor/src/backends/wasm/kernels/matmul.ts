import type { View } from "../../../backend.ts";
import { BYTES_PER_ELEMENT } from "../../../dtype.ts";
import { starts } from "../../cpu/strided.ts";
import { type Engine, memoryOf } from "../engine.ts";
import { fastestTile } from "../gemm/calibrate.ts";
import { K_BLOCK, N_BLOCK, packedLength } from "../gemm/gemm.ts";
import { GEMV_ROWS, columnsOfItem } from "../gemm/gemv.ts";
import type { Order } from "../gemm/pack.ts";
import { readIn, writeIn } from "../gemm/staging.ts";
import { TILES, columnMultiplier, leftPacker, multiplier, rowMultiplier } from "../gemm/tiles.ts";
import type { WasmBuffer } from "../heap.ts";
import type { FloatDType } from "../widening.ts";

/** Multiply-adds of a product from which on it pays to find the fastest tile first. */
const WORTH_CALIBRATING = 1 << 24;
/** Rows of A that are packed at once, at most. */
const ROWS_AT_ONCE = 1152;
/** A multiple of the rows of every tile. */
const EVERY_TILE = 12;
/** Rows of an item at least, where rows are shared among threads; a multiple of the rows of every tile. */
const LEAST_ROWS = 48;

/** Multiply-adds in the time that an element takes to be packed. */
const PACKING = 16;

/** Rows of a block from which on packing its columns costs little. */
const HIGH = 192;

/** A matrix in a memory; steps in bytes. */
interface Matrix {
  readonly dtype: FloatDType;
  readonly memory: number;
  readonly address: number;
  readonly rowStep: number;
  readonly columnStep: number;
}

interface Sizes {
  readonly m: number;
  readonly n: number;
  readonly k: number;
}

/**
 * out = a·b for each batch; a, b float32, bfloat16 or float16 of any strides, in any memory. Every element is one sum over the inner
 * dimension in ascending order, in blocks of K_BLOCK, on every path: its bytes depend on nothing else of the call. False where there
 * is nothing to add up, or out is no matrix of contiguous rows.
 */
export function matmul(engine: Engine, out: View, a: View, b: View): boolean {
  const [m, n] = out.layout.shape.slice(-2) as [number, number];
  const k = a.layout.shape.at(-1)!;
  if (k === 0 || (n > 1 && out.layout.strides.at(-1) !== 1)) return false;
  const [outs, as, bs] = [matrices(out), matrices(a), matrices(b)];
  for (let i = 0; i < outs.length; i++) multiply(engine, outs[i]!, as[i]!, bs[i]!, { m, n, k });
  return true;
}

/** out += a·b for matrices of more than one row and column, in the memory of b; false, and nothing done, for others. */
export function addMatmul(engine: Engine, out: View, a: View, b: View): boolean {
  const [m, n] = out.layout.shape as [number, number];
  const k = a.layout.shape.at(-1)!;
  const here = memoryOf(out) === memoryOf(b) && out.layout.strides.at(-1) === 1;
  if (m < 2 || n < 2 || k === 0 || !here) return false;
  multiply(engine, matrices(out)[0]!, matrices(a)[0]!, matrices(b)[0]!, { m, n, k }, true);
  return true;
}

function matrices(view: View): Matrix[] {
  const { dtype, address } = view.buffer as WasmBuffer;
  const bytes = BYTES_PER_ELEMENT[dtype];
  const [rowStep, columnStep] = view.layout.strides.slice(-2).map((stride) => stride * bytes) as [number, number];
  return starts(view.layout, view.layout.shape.length - 2).map((start) => ({
    dtype: dtype as FloatDType,
    memory: memoryOf(view),
    address: address + start * bytes,
    rowStep,
    columnStep,
  }));
}

function multiply(engine: Engine, c: Matrix, a: Matrix, b: Matrix, sizes: Sizes, add = false): void {
  const { m, n, k } = sizes;
  if (m === 0 || n === 0) return;
  if (m === 1 && vectorTimes(engine, c, a, b, { n, k })) return;
  if (n === 1 && vectorTimes(engine, transposed(c), transposed(b), transposed(a), { n: m, k })) return;
  // equal parts: a short one would pack all of B for few rows
  const height = upTo(EVERY_TILE, m / Math.ceil(m / ROWS_AT_ONCE));
  for (let row = 0; row < m; row += height) {
    const rows = { ...sizes, m: Math.min(height, m - row) };
    packedTimes(engine, fromRow(c, row), fromRow(a, row), b, rows, add);
  }
}

const transposed = (x: Matrix): Matrix => ({ ...x, rowStep: x.columnStep, columnStep: x.rowStep });
const fromRow = (x: Matrix, row: number): Matrix => ({ ...x, address: x.address + row * x.rowStep });

/**
 * C = A·B, or C + A·B where `add`, a block of k after the other, so that what is packed of A is used while it is in a cache. B is read where it lies, since
 * weights may be in a memory of their own.
 */
function packedTimes(engine: Engine, c: Matrix, a: Matrix, b: Matrix, { m, n, k }: Sizes, add: boolean): void {
  if (m * n * k >= WORTH_CALIBRATING) calibrate(engine);
  const { tile, pool } = engine;
  const { rows } = TILES[tile];
  const length = packedLength(TILES[tile], m, Math.min(k, K_BLOCK));
  const columnBlocks = Math.ceil(n / N_BLOCK);
  const rowBlocks = rowBlocksFor(m, columnBlocks, pool.threads);
  const blockRows = rowBlocks === 1 ? m : Math.max(LEAST_ROWS, upTo(EVERY_TILE, m / rowBlocks));
  const packA = leftPacker(tile, a.dtype, orderOf(a.dtype, a.columnStep, a.rowStep));
  const multiplyB = multiplier(tile, b.dtype, orderOf(b.dtype, b.rowStep, b.columnStep));
  writeIn(engine, b.memory, { ...c, rows: m, columns: n }, (target, cStep) =>
    engine.withTemporary(a.memory, length, (packed) => {
      for (let first = 0; first < k; first += K_BLOCK) {
        const steps = Math.min(K_BLOCK, k - first);
        engine.run(packA, "packLeft", [packed, a.address + first * a.columnStep, a.rowStep, a.columnStep, m, steps], {
          items: Math.ceil(m / rows),
          work: PACKING * rows * steps,
          memory: a.memory,
        });
        const left = { memory: a.memory, address: packed, rowStep: 0, rows: 1, columns: length };
        const right = b.address + first * b.rowStep;
        const accumulate = add || first > 0 ? 1 : 0;
        readIn(engine, b.memory, left, (leftAddress) =>
          engine.run(
            multiplyB,
            "gemm",
            [
              leftAddress,
              right,
              target,
              m,
              n,
              steps,
              b.columnStep,
              b.rowStep,
              cStep,
              columnBlocks,
              blockRows,
              accumulate,
            ],
            {
              items: columnBlocks * Math.ceil(m / blockRows),
              work: Math.min(n, N_BLOCK) * blockRows * steps,
              memory: b.memory,
            },
          ),
        );
      }
    }),
  );
}

const upTo = (multiple: number, x: number): number => Math.ceil(x / multiple) * multiple;

/**
 * Blocks of rows: more than one where columns alone would not occupy all threads, or would leave one idle for a twentieth of the
 * time, nine blocks for two threads say. Each packs its columns of B anew, so they stay high.
 */
function rowBlocksFor(m: number, columnBlocks: number, threads: number): number {
  const least = Math.max(1, Math.ceil((4 * threads) / columnBlocks));
  const idle = (blocks: number): number => {
    const items = blocks * columnBlocks;
    return 1 - items / (threads * Math.ceil(items / threads));
  };
  for (let blocks = least; m / blocks >= HIGH || blocks === least; blocks++) if (idle(blocks) <= 0.05) return blocks;
  return least;
}

/** c [1, n] = a [1, k] · b [k, n], reading b once; false where b has no contiguous axis or the vectors are not contiguous float32. */
function vectorTimes(engine: Engine, c: Matrix, a: Matrix, b: Matrix, { n, k }: Omit<Sizes, "m">): boolean {
  const order = orderOf(b.dtype, b.rowStep, b.columnStep);
  const contiguous = a.dtype === "float32" && (k === 1 || a.columnStep === 4) && (n === 1 || c.columnStep === 4);
  if (order === "strided" || !contiguous) return false;
  const byRows = order === "alongK";
  const [definition, name, width] = byRows
    ? [rowMultiplier(b.dtype), "gemvRows", GEMV_ROWS]
    : [columnMultiplier(b.dtype), "gemvColumns", columnsOfItem(n, engine.pool.threads)];
  const step = byRows ? b.columnStep : b.rowStep;
  readIn(engine, b.memory, { ...a, rows: 1, columns: k }, (x) =>
    writeIn(engine, b.memory, { ...c, rows: 1, columns: n }, (out) =>
      engine.run(definition, name, [out, x, b.address, step, n, k, ...(byRows ? [] : [width])], {
        items: Math.ceil(n / width),
        work: width * k,
        memory: b.memory,
      }),
    ),
  );
  return true;
}

/** Chooses the tile of an engine, once. */
function calibrate(engine: Engine): void {
  if (calibrated.has(engine)) return;
  calibrated.add(engine);
  engine.tile = fastestTile(engine);
}
const calibrated = new WeakSet<Engine>();

/** How panels across the inner axis lie, given the steps along it and along the panel. */
function orderOf(dtype: FloatDType, kStep: number, panelStep: number): Order {
  const bytes = BYTES_PER_ELEMENT[dtype];
  if (kStep === bytes) return "alongK";
  return panelStep === bytes ? "alongPanel" : "strided";
}
