import { BYTES_PER_ELEMENT } from "../../../dtype.ts";
import { type Expr, add, at, f32x4, i32, load, mul, op, shuffle } from "../asm/expression.ts";
import type { Local } from "../asm/function.ts";
import type { ModuleDefinition } from "../engine.ts";
import { multiplyAdd } from "../vectors.ts";
import { type FloatDType, loadFour, loadOne } from "../widening.ts";
import { K_BLOCK } from "./gemm.ts";
import { PHASES, remaining, transposed } from "./pack.ts";

/** Rows of W that one item multiplies: four sums at once hide the latency of an addition. */
export const GEMV_ROWS = 4;
/** Columns of B whose sums stay in the first cache: the most that an item has. */
const GEMV_COLUMNS = 1024;
/** The fewest that an item has: shorter runs of a row are read no faster by several threads. */
const LEAST_COLUMNS = 128;
const ITEMS_OF_THREAD = 3;
/** Elements of a row that one step reads. */
const STEP = 16;
/** Bytes of a row up to which it pays to touch the next rows: longer ones the processor prefetches well by itself. */
const SHORT_ROW = 4096;

/**
 * out[r] = Σ_k x[k]·w[r, k], with the sums of gemm: a vector of sums is the phases of a block. w [rows, k] lies with k contiguous; item
 * i is rows 4·i to 4·i + 3. Where rows are short, those of the next item are touched meanwhile, line by line: one ascending stream,
 * which the processor prefetches, where four short ones are read at half the speed or less.
 */
export const gemvRows = (dtype: FloatDType): ModuleDefinition => ({
  build(m, { madd }) {
    const bytes = BYTES_PER_ELEMENT[dtype];
    m.kernel(
      "gemvRows",
      { out: "i32", x: "i32", w: "i32", rowStep: "i32", rows: "i32", k: "i32" },
      (f, { out, x, w, rowStep, rows, k, from, to }) => {
        const [item, block, p, xs, ahead, touched] = f.locals(6, "i32") as [Local, Local, Local, Local, Local, Local];
        const pointers = f.locals(GEMV_ROWS, "i32");
        const [sums, totals] = [f.locals(GEMV_ROWS, "v128"), f.local("v128")];
        const accumulate = (r: number, xs: Expr, ws: Expr): void =>
          f.set(sums[r]!, multiplyAdd(madd, xs, ws, sums[r]!));
        const short = f.local("i32", op("i32.le_u", rowStep, SHORT_ROW));
        f.for(item, from, to, 1, () => {
          const row = f.local("i32", mul(item, GEMV_ROWS));
          const count = remaining(f, rows, row, GEMV_ROWS);
          const first = f.local("i32", at(w, row, rowStep));
          // rows beyond the last are the first again
          pointers.forEach((pointer, r) => {
            f.set(pointer, first);
            f.if(op("i32.gt_s", count, r), () => f.set(pointer, at(first, i32(r), rowStep)));
          });
          f.set(ahead, at(first, i32(GEMV_ROWS), rowStep));
          f.if(op("i32.gt_s", add(row, 2 * GEMV_ROWS), rows), () => f.set(ahead, first));
          f.set(totals, f32x4(0));
          f.set(xs, x);
          f.for(block, 0, k, K_BLOCK, () => {
            const length = remaining(f, k, block, K_BLOCK);
            const whole = f.local("i32", op("i32.and", length, -STEP));
            for (const sum of sums) f.set(sum, f32x4(0));
            f.for(p, 0, whole, STEP, () => {
              for (let quarter = 0; quarter < STEP / 4; quarter++) {
                // a branch that is never taken: TurboFan would move the loads of all quarters here, and run out of registers
                f.block(() => {
                  f.leaveIf(op("i32.eqz", xs), 0);
                  const four = f.local("v128", load("v128.load", xs, 16 * quarter));
                  pointers.forEach((pointer, r) =>
                    accumulate(r, four, loadFour(f, dtype, pointer, 4 * quarter * bytes)),
                  );
                });
              }
              f.if(short, () => {
                for (let line = 0; line < GEMV_ROWS * STEP * bytes; line += 64)
                  f.set(touched, op("i32.xor", touched, load("i32.load", ahead, line)));
                f.advance(ahead, GEMV_ROWS * STEP * bytes);
              });
              for (const pointer of pointers) f.advance(pointer, STEP * bytes);
              f.advance(xs, 4 * STEP);
            });
            for (let i = 0; i < STEP - 1; i++) {
              f.if(op("i32.gt_s", length, add(whole, i)), () => {
                const one = f.local("v128", inLane(loadOne(f, "float32", xs, 4 * i), i % PHASES));
                pointers.forEach((pointer, r) =>
                  accumulate(r, one, inLane(loadOne(f, dtype, pointer, i * bytes), i % PHASES)),
                );
              });
            }
            const rest = f.local("i32", op("i32.sub", length, whole));
            for (const pointer of pointers) f.advance(pointer, mul(rest, bytes));
            f.advance(xs, mul(rest, 4));
            for (const phase of transposed(f, sums, f.locals(4, "v128"))) f.set(totals, op("f32x4.add", totals, phase));
          });
          const target = f.local("i32", at(out, row, i32(4)));
          for (let r = 0; r < GEMV_ROWS; r++)
            f.if(op("i32.gt_s", count, r), () => f.storeLane("v128.store32_lane", target, totals, r, 4 * r));
        });
        // so that the engine cannot leave out the reading
        f.if(op("i32.eq", touched, 0x5a5a5a5b), () => f.set(touched, 0));
      },
    );
  },
});

/** x, which has its one element in lane 0, with it in lane i and zeros elsewhere. */
const inLane = (x: Expr, i: number): Expr =>
  i === 0
    ? x
    : shuffle(x, f32x4(0), ...([0, 1, 2, 3].map((lane) => (lane === i ? 0 : 4)) as [number, number, number, number]));

/** Columns of an item, whole cache lines of them: several items for each thread, so that one that comes late takes fewer. */
export function columnsOfItem(columns: number, threads: number): number {
  if (threads === 1) return GEMV_COLUMNS;
  const items = Math.max(1, Math.ceil(columns / GEMV_COLUMNS / threads)) * threads * ITEMS_OF_THREAD;
  return Math.max(LEAST_COLUMNS, Math.ceil(columns / items / 16) * 16);
}

/**
 * out[j] = Σ_k x[k]·b[k, j], with the sums of gemm. b [k, columns] lies with columns contiguous; item i is columns width·i to
 * width·(i + 1) − 1, read row by row; width is at most 1024.
 */
export const gemvColumns = (dtype: FloatDType): ModuleDefinition => ({
  build(m, { madd }) {
    const bytes = BYTES_PER_ELEMENT[dtype];
    m.kernel(
      "gemvColumns",
      { out: "i32", x: "i32", b: "i32", kStep: "i32", columns: "i32", k: "i32", width: "i32" },
      (f, { out, x, b, kStep, columns, k, width, from, to, scratch }) => {
        const [item, block, phase, p, j] = f.locals(5, "i32") as [Local, Local, Local, Local, Local];
        const [source, end] = f.locals(2, "i32") as [Local, Local];
        f.for(item, from, to, 1, () => {
          const column = f.local("i32", mul(item, width));
          const count = remaining(f, columns, column, width);
          const whole = f.local("i32", op("i32.and", count, -4));
          const target = f.local("i32", at(out, column, i32(4)));
          f.zero(target, mul(count, 4));
          f.for(block, 0, k, K_BLOCK, () => {
            f.set(end, add(block, remaining(f, k, block, K_BLOCK)));
            f.for(phase, 0, PHASES, 1, () => {
              f.zero(scratch, mul(count, 4));
              const pass = (steps: number): void => {
                f.set(source, at(at(b, p, kStep), column, i32(bytes)));
                const splats = Array.from({ length: steps }, (_, i) =>
                  f.local("v128", load("v128.load32_splat", at(x, p, i32(4)), 4 * PHASES * i)),
                );
                const sources = splats.map((_, i) => f.local("i32", at(source, i32(PHASES * i), kStep)));
                const accumulate = (lanes: 1 | 4): void => {
                  const sumAt = f.local("i32", at(scratch, j, i32(4)));
                  const sum = f.local("v128", load(lanes === 4 ? "v128.load" : "v128.load32_zero", sumAt));
                  sources.forEach((each, i) => {
                    const place = at(each, j, i32(bytes));
                    const elements = lanes === 4 ? loadFour(f, dtype, place) : loadOne(f, dtype, place);
                    f.set(sum, multiplyAdd(madd, splats[i]!, elements, sum));
                  });
                  if (lanes === 4) f.store("v128.store", sumAt, sum);
                  else f.storeLane("v128.store32_lane", sumAt, sum, 0);
                };
                f.for(j, 0, whole, 4, () => accumulate(4));
                f.for(j, whole, count, 1, () => accumulate(1));
              };
              f.for(p, add(block, phase), op("i32.sub", end, 3 * PHASES), 4 * PHASES, () => pass(4));
              f.for(p, p, end, PHASES, () => pass(1));
              f.for(j, 0, whole, 4, () => {
                const place = f.local("i32", at(target, j, i32(4)));
                const sum = load("v128.load", at(scratch, j, i32(4)));
                f.store("v128.store", place, op("f32x4.add", load("v128.load", place), sum));
              });
              f.for(j, whole, count, 1, () => {
                const place = f.local("i32", at(target, j, i32(4)));
                const sum = load("f32.load", at(scratch, j, i32(4)));
                f.store("f32.store", place, op("f32.add", load("f32.load", place), sum));
              });
            });
          });
        });
      },
    );
  },
});
