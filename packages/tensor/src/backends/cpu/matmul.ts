import type { View } from "../../backend.ts";
import type { DType } from "../../dtype.ts";
import { dataOf } from "../hostMemory.ts";
import { cached, compile, load } from "./generate.ts";
import { starts } from "./strided.ts";

/** Rows of a and columns of b in one register tile: 5.4 GFLOP/s where 2×4, 3×4 and 4×2 reach 4.9 to 5.3 (V8 11.3, Zen 4). */
const TILE = 4;
/** Elements of a packed block: 256 KiB of a, 512 KiB of b, as float64: float32 panels cost a conversion per use (4.1 GFLOP/s). */
const A_BLOCK = 32_768;
const B_BLOCK = 65_536;

/** A matrix in a buffer: element (i, j) is at `at` + i·rowStep + j·columnStep. */
interface Matrix {
  readonly view: View;
  readonly at: number;
  readonly rowStep: number;
  readonly columnStep: number;
}

/**
 * out = a·b for each batch. Every element is one sum over the whole inner dimension in ascending order, in float64, on every path:
 * its bytes depend on nothing else of the call.
 */
export function matmul(out: View, a: View, b: View): void {
  const [m, n] = out.layout.shape.slice(-2) as [number, number];
  const k = a.layout.shape.at(-1)!;
  const [outs, as, bs] = [matrices(out), matrices(a), matrices(b)];
  for (let i = 0; i < outs.length; i++) {
    if (m === 1) vectorMatrix(outs[i]!, as[i]!, bs[i]!, n, k);
    else if (n === 1) vectorMatrix(transposed(outs[i]!), transposed(bs[i]!), transposed(as[i]!), m, k);
    else tiled(outs[i]!, as[i]!, bs[i]!, m, n, k);
  }
}

function matrices(view: View): Matrix[] {
  const [rowStep, columnStep] = view.layout.strides.slice(-2) as [number, number];
  return starts(view.layout, view.layout.shape.length - 2).map((at) => ({ view, at, rowStep, columnStep }));
}

const transposed = ({ view, at, rowStep, columnStep }: Matrix): Matrix => ({
  view,
  at,
  rowStep: columnStep,
  columnStep: rowStep,
});

function tiled(out: Matrix, a: Matrix, b: Matrix, m: number, n: number, k: number): void {
  const height = blockSize(A_BLOCK, k, 32, m);
  const width = blockSize(B_BLOCK, k, 64, n);
  const aPanels = scratch(0, height * k);
  const bPanels = scratch(1, width * k);
  const c = dataOf(out.view.buffer) as Float32Array;
  const corner = new Float32Array(TILE * TILE);
  for (let column = 0; column < n; column += width) {
    const columns = Math.min(width, n - column);
    pack(bPanels, transposed(b), column, columns, k);
    for (let row = 0; row < m; row += height) {
      const rows = Math.min(height, m - row);
      pack(aPanels, a, row, rows, k);
      for (let j = 0; j < columns; j += TILE) {
        for (let i = 0; i < rows; i += TILE) {
          const at = out.at + (row + i) * out.rowStep + (column + j) * out.columnStep;
          if (i + TILE <= rows && j + TILE <= columns) {
            tile(c, at, out.rowStep, out.columnStep, aPanels, i * k, bPanels, j * k, k);
            continue;
          }
          tile(corner, 0, TILE, 1, aPanels, i * k, bPanels, j * k, k);
          for (let y = 0; y < Math.min(TILE, rows - i); y++)
            for (let x = 0; x < Math.min(TILE, columns - j); x++)
              c[at + y * out.rowStep + x * out.columnStep] = corner[y * TILE + x]!;
        }
      }
    }
  }
}

/** A multiple of TILE, about `elements` / k, at least `least`, no more than `size` needs. */
function blockSize(elements: number, k: number, least: number, size: number): number {
  const fitting = Math.max(least, Math.floor(elements / Math.max(1, k)));
  return Math.ceil(Math.min(fitting, size) / TILE) * TILE;
}

const scratches = [new Float64Array(A_BLOCK), new Float64Array(B_BLOCK)];
function scratch(which: 0 | 1, length: number): Float64Array {
  if (scratches[which]!.length < length) scratches[which] = new Float64Array(length);
  return scratches[which]!;
}

/** Rows `first` … of x, four by four: panel[p·4 + r] is element p of row r, 0 beyond the last row. */
function pack(panels: Float64Array, x: Matrix, first: number, rows: number, k: number): void {
  packRows(x.view.buffer.dtype)(
    panels,
    dataOf(x.view.buffer),
    x.at + first * x.rowStep,
    x.rowStep,
    x.columnStep,
    rows,
    k,
  );
}

const packRows = cached((dtype) => {
  const element = (at: string) => load(dtype as DType, "data", at);
  return compile(
    ["panels", "data", "from", "rowStep", "step", "rows", "k"],
    `let to = 0, row = 0;
    for (; row + 4 <= rows; row += 4) {
      let i0 = from + row * rowStep, i1 = i0 + rowStep, i2 = i1 + rowStep, i3 = i2 + rowStep;
      for (let p = 0; p < k; p++) {
        panels[to] = ${element("i0")}; panels[to + 1] = ${element("i1")};
        panels[to + 2] = ${element("i2")}; panels[to + 3] = ${element("i3")};
        to += 4; i0 += step; i1 += step; i2 += step; i3 += step;
      }
    }
    if (row === rows) return;
    panels.fill(0, to, to + 4 * k);
    for (let r = 0; row + r < rows; r++) {
      const at = from + (row + r) * rowStep;
      for (let p = 0; p < k; p++) panels[to + p * 4 + r] = ${element("at + p * step")};
    }`,
  );
});

/** A 4×4 tile of c from a panel of a at `i` and a panel of b at `j`. */
function tile(
  c: Float32Array,
  at: number,
  rowStep: number,
  columnStep: number,
  a: Float64Array,
  i: number,
  b: Float64Array,
  j: number,
  k: number,
): void {
  let [c00, c01, c02, c03] = [0, 0, 0, 0];
  let [c10, c11, c12, c13] = [0, 0, 0, 0];
  let [c20, c21, c22, c23] = [0, 0, 0, 0];
  let [c30, c31, c32, c33] = [0, 0, 0, 0];
  for (let p = 0; p < k; p++, i += TILE, j += TILE) {
    const a0 = a[i]!;
    const a1 = a[i + 1]!;
    const a2 = a[i + 2]!;
    const a3 = a[i + 3]!;
    const b0 = b[j]!;
    const b1 = b[j + 1]!;
    const b2 = b[j + 2]!;
    const b3 = b[j + 3]!;
    c00 += a0 * b0;
    c01 += a0 * b1;
    c02 += a0 * b2;
    c03 += a0 * b3;
    c10 += a1 * b0;
    c11 += a1 * b1;
    c12 += a1 * b2;
    c13 += a1 * b3;
    c20 += a2 * b0;
    c21 += a2 * b1;
    c22 += a2 * b2;
    c23 += a2 * b3;
    c30 += a3 * b0;
    c31 += a3 * b1;
    c32 += a3 * b2;
    c33 += a3 * b3;
  }
  const r1 = at + rowStep;
  const r2 = r1 + rowStep;
  const r3 = r2 + rowStep;
  c[at] = c00;
  c[at + columnStep] = c01;
  c[at + 2 * columnStep] = c02;
  c[at + 3 * columnStep] = c03;
  c[r1] = c10;
  c[r1 + columnStep] = c11;
  c[r1 + 2 * columnStep] = c12;
  c[r1 + 3 * columnStep] = c13;
  c[r2] = c20;
  c[r2 + columnStep] = c21;
  c[r2 + 2 * columnStep] = c22;
  c[r2 + 3 * columnStep] = c23;
  c[r3] = c30;
  c[r3 + columnStep] = c31;
  c[r3 + 2 * columnStep] = c32;
  c[r3 + 3 * columnStep] = c33;
}

/** One row: out [1, n] = a [1, k] · b [k, n]; b is read once, along its shorter step. */
function vectorMatrix(out: Matrix, a: Matrix, b: Matrix, n: number, k: number): void {
  const x = new Float64Array(k);
  if (k > 0) packRow(a.view.buffer.dtype)(x, dataOf(a.view.buffer), a.at, a.columnStep, k);
  const sums = new Float64Array(n);
  const kernel = Math.abs(b.rowStep) < Math.abs(b.columnStep) ? dotColumns : addScaledRows;
  kernel(b.view.buffer.dtype)(sums, x, dataOf(b.view.buffer), b.at, b.rowStep, b.columnStep, n, k);
  const c = dataOf(out.view.buffer);
  for (let j = 0; j < n; j++) c[out.at + j * out.columnStep] = sums[j]!;
}

const packRow = cached((dtype) =>
  compile(
    ["x", "data", "from", "step", "k"],
    `for (let p = 0; p < k; p++) x[p] = ${load(dtype as DType, "data", "from + p * step")};`,
  ),
);

const VECTOR_PARAMETERS = ["sums", "x", "data", "from", "rowStep", "step", "n", "k"];

/** For a transposed b. Four columns at a time hide the latency of an addition. */
const dotColumns = cached((dtype) => {
  const element = (at: string) => load(dtype as DType, "data", at);
  return compile(
    VECTOR_PARAMETERS,
    `let j = 0;
    for (; j + 4 <= n; j += 4) {
      let i0 = from + j * step, i1 = i0 + step, i2 = i1 + step, i3 = i2 + step;
      let s0 = 0, s1 = 0, s2 = 0, s3 = 0;
      for (let p = 0; p < k; p++) {
        const v = x[p];
        s0 += v * ${element("i0")}; s1 += v * ${element("i1")}; s2 += v * ${element("i2")}; s3 += v * ${element("i3")};
        i0 += rowStep; i1 += rowStep; i2 += rowStep; i3 += rowStep;
      }
      sums[j] = s0; sums[j + 1] = s1; sums[j + 2] = s2; sums[j + 3] = s3;
    }
    for (; j < n; j++) {
      const at = from + j * step;
      let s = 0;
      for (let p = 0; p < k; p++) s += x[p] * ${element("at + p * rowStep")};
      sums[j] = s;
    }`,
  );
});

/** For a row-major b, 1024 columns at a time so that their sums stay in the first cache. */
const addScaledRows = cached((dtype) =>
  compile(
    VECTOR_PARAMETERS,
    `for (let first = 0; first < n; first += 1024) {
      const end = Math.min(n, first + 1024);
      for (let p = 0; p < k; p++) {
        const v = x[p], row = from + p * rowStep;
        for (let j = first; j < end; j++) sums[j] += v * ${load(dtype as DType, "data", "row + j * step")};
      }
    }`,
  ),
);
