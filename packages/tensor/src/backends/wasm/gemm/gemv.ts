import { BYTES_PER_ELEMENT } from "../../../dtype.ts";
import { add, at, f32x4, i32, load, mul, op } from "../asm/expression.ts";
import type { Local } from "../asm/function.ts";
import type { ModuleDefinition } from "../engine.ts";
import { multiplyAdd } from "../vectors.ts";
import { type FloatDType, loadFour, loadOne } from "../widening.ts";
import { K_BLOCK } from "./gemm.ts";
import { remaining, transposed } from "./pack.ts";

/** Rows of W that one item multiplies: four vectors of sums hide the latency of an addition. */
export const GEMV_ROWS = 16;
/** Columns of B whose sums stay in the first cache. */
export const GEMV_COLUMNS = 1024;

/**
 * out[r] = Σ_k x[k]·w[r, k], with the sums of gemm: k ascending in blocks, lanes are rows. w [rows, k] lies with k contiguous; item i
 * is rows 16·i to 16·i + 15. While an item is computed, the rows of the next are touched in ascending order: one stream, which the
 * processor prefetches, where sixteen would be read at half the speed of memory.
 */
export const gemvRows = (dtype: FloatDType): ModuleDefinition => ({
  build(m, { madd }) {
    const bytes = BYTES_PER_ELEMENT[dtype];
    m.kernel(
      "gemvRows",
      { out: "i32", x: "i32", w: "i32", rowStep: "i32", rows: "i32", k: "i32" },
      (f, { out, x, w, rowStep, rows, k, from, to }) => {
        const groups = GEMV_ROWS / 4;
        const [item, block, p, ahead] = f.locals(4, "i32") as [Local, Local, Local, Local];
        const [lanes, t] = [f.locals(4, "v128"), f.locals(4, "v128")];
        const totals = f.locals(groups, "v128");
        const sums = f.locals(groups, "v128");
        const touched = f.local("i32");
        f.for(item, from, to, 1, () => {
          const row = f.local("i32", mul(item, GEMV_ROWS));
          const count = remaining(f, rows, row, GEMV_ROWS);
          const first = f.local("i32", at(w, row, rowStep));
          // rows beyond the last are the last again
          const starts = Array.from({ length: GEMV_ROWS }, (_, i) => {
            const start = f.local("i32", first);
            f.if(op("i32.gt_s", count, i), () => f.set(start, at(first, i32(i), rowStep)));
            return start;
          });
          f.set(ahead, at(first, i32(GEMV_ROWS), rowStep));
          f.if(op("i32.ge_s", add(row, 2 * GEMV_ROWS), rows), () => f.set(ahead, first));
          for (const total of totals) f.set(total, f32x4(0));
          f.for(block, 0, k, K_BLOCK, () => {
            const end = f.local("i32", add(block, remaining(f, k, block, K_BLOCK)));
            const wholeEnd = f.local("i32", add(block, op("i32.and", op("i32.sub", end, block), -4)));
            for (const sum of sums) f.set(sum, f32x4(0));
            const sumColumn = (g: number, column: ReturnType<typeof op>, position: number): void => {
              const splat = load("v128.load32_splat", at(x, p, i32(4)), 4 * position);
              f.set(sums[g]!, multiplyAdd(madd, splat, column, sums[g]!));
            };
            f.for(p, block, wholeEnd, 4, () => {
              for (let g = 0; g < groups; g++) {
                lanes.forEach((lane, i) => f.set(lane, loadFour(f, dtype, at(starts[4 * g + i]!, p, i32(bytes)))));
                transposed(f, lanes, t).forEach((column, i) => sumColumn(g, column, i));
                // 16 rows of 4 elements are as many bytes ahead
                f.set(touched, op("i32.xor", touched, load("i32.load", ahead, 16 * bytes * g)));
                f.if(op("i32.eq", touched, 0x5a5a5a5b), () => f.set(touched, 0)); // ends the basic block: loads stay here
              }
              f.advance(ahead, 64 * bytes);
            });
            f.for(p, wholeEnd, end, 1, () => {
              for (let g = 0; g < groups; g++) {
                lanes.forEach((lane, i) => f.set(lane, loadOne(f, dtype, at(starts[4 * g + i]!, p, i32(bytes)))));
                sumColumn(g, transposed(f, lanes, t)[0]!, 0);
              }
            });
            sums.forEach((sum, g) => f.set(totals[g]!, op("f32x4.add", totals[g]!, sum)));
          });
          const target = f.local("i32", at(out, row, i32(4)));
          for (let i = 0; i < GEMV_ROWS; i++)
            f.if(op("i32.gt_s", count, i), () =>
              f.storeLane("v128.store32_lane", target, totals[Math.floor(i / 4)]!, i % 4, 4 * i),
            );
        });
        f.if(op("i32.eq", touched, 0x5a5a5a5b), () => f.set(touched, 0));
      },
    );
  },
});

/**
 * out[j] = Σ_k x[k]·b[k, j], with the sums of gemm. b [k, columns] lies with columns contiguous; item i is columns 1024·i to
 * 1024·i + 1023, read row by row.
 */
export const gemvColumns = (dtype: FloatDType): ModuleDefinition => ({
  build(m, { madd }) {
    const bytes = BYTES_PER_ELEMENT[dtype];
    m.kernel(
      "gemvColumns",
      { out: "i32", x: "i32", b: "i32", kStep: "i32", columns: "i32", k: "i32" },
      (f, { out, x, b, kStep, columns, k, from, to, scratch }) => {
        const [item, block, p, j, source, end] = f.locals(6, "i32") as [Local, Local, Local, Local, Local, Local];
        f.for(item, from, to, 1, () => {
          const column = f.local("i32", mul(item, GEMV_COLUMNS));
          const count = remaining(f, columns, column, GEMV_COLUMNS);
          const whole = f.local("i32", op("i32.and", count, -4));
          const target = f.local("i32", at(out, column, i32(4)));
          f.zero(target, mul(count, 4));
          f.for(block, 0, k, K_BLOCK, () => {
            f.zero(scratch, i32(4 * GEMV_COLUMNS));
            f.set(end, add(block, remaining(f, k, block, K_BLOCK)));
            const pass = (steps: number): void => {
              f.set(source, at(at(b, p, kStep), column, i32(bytes)));
              const splats = Array.from({ length: steps }, (_, i) =>
                f.local("v128", load("v128.load32_splat", at(x, p, i32(4)), 4 * i)),
              );
              const sources = splats.map((_, i) => f.local("i32", at(source, i32(i), kStep)));
              const accumulate = (width: 1 | 4): void => {
                const sumAt = f.local("i32", at(scratch, j, i32(4)));
                const sum = f.local("v128", load(width === 4 ? "v128.load" : "v128.load32_zero", sumAt));
                sources.forEach((each, i) => {
                  const place = at(each, j, i32(bytes));
                  const elements = width === 4 ? loadFour(f, dtype, place) : loadOne(f, dtype, place);
                  f.set(sum, multiplyAdd(madd, splats[i]!, elements, sum));
                });
                if (width === 4) f.store("v128.store", sumAt, sum);
                else f.storeLane("v128.store32_lane", sumAt, sum, 0);
              };
              f.for(j, 0, whole, 4, () => accumulate(4));
              f.for(j, whole, count, 1, () => accumulate(1));
            };
            const wholeEnd = f.local("i32", add(block, op("i32.and", op("i32.sub", end, block), -4)));
            f.for(p, block, wholeEnd, 4, () => pass(4));
            f.for(p, wholeEnd, end, 1, () => pass(1));
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
      },
    );
  },
});
