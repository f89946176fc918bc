import { BYTES_PER_ELEMENT } from "../../../dtype.ts";
import { type Expr, add, at, f32x4, i32, load, mul, op, shuffle, shuffleBytes } from "../asm/expression.ts";
import type { FunctionBuilder, Local } from "../asm/function.ts";
import type { ModuleDefinition } from "../engine.ts";
import { multiplyAdd } from "../vectors.ts";
import { type FloatDType, loadFour, loadOne, widenHalf } from "../widening.ts";
import { K_BLOCK } from "./gemm.ts";
import { remaining, transposed } from "./pack.ts";

/** Columns of B whose sums stay in the first cache. */
export const GEMV_COLUMNS = 1024;
/** Elements of a row that one step reads of each block. */
const STEP = 8;
/** Rows of W that one item multiplies: with two blocks of each, two to four vectors of sums. */
export const gemvRowCount = (dtype: FloatDType): number => 16 / BYTES_PER_ELEMENT[dtype];

/**
 * out[r] = Σ_k x[k]·w[r, k], with the sums of gemm: k ascending in blocks; lanes are rows, so 4 × 4 pieces of W are transposed in
 * registers. Two blocks go side by side, which hides the latency of additions. w [rows, k] lies with k contiguous; item i is
 * gemvRowCount rows. Meanwhile the rows of the next item are touched line by line: one ascending stream, which the processor
 * prefetches, where the short ones of the rows at hand are read at a third of the speed of memory.
 */
export const gemvRows = (dtype: FloatDType): ModuleDefinition => ({
  build(m, { madd }) {
    const bytes = BYTES_PER_ELEMENT[dtype];
    const rowCount = gemvRowCount(dtype);
    const groups = rowCount / 4;
    const blockBytes = K_BLOCK * bytes;
    m.kernel(
      "gemvRows",
      { out: "i32", x: "i32", w: "i32", rowStep: "i32", rows: "i32", k: "i32" },
      (f, { out, x, w, rowStep, rows, k, from, to }) => {
        const [item, pair, p, along, xs] = f.locals(5, "i32") as [Local, Local, Local, Local, Local];
        const pointers = f.locals(4, "i32");
        const totals = f.locals(groups, "v128");
        const sums = [f.locals(groups, "v128"), f.locals(groups, "v128")] as const;
        const accumulate = (block: number, group: number, column: Expr, position: number): void => {
          const sum = sums[block]![group]!;
          const splat = load("v128.load32_splat", xs, 4 * (block * K_BLOCK + position));
          f.set(sum, multiplyAdd(madd, splat, column, sum));
        };
        const [ahead, touched] = f.locals(2, "i32") as [Local, Local];
        /** One word of each cache line that the step read, of the next item. */
        const touch = (blocks: number): void => {
          const stepBytes = blocks * rowCount * STEP * bytes;
          for (let line = 0; line < stepBytes; line += 64)
            f.set(touched, op("i32.xor", touched, load("i32.load", ahead, line)));
          f.advance(ahead, stepBytes);
        };
        f.for(item, from, to, 1, () => {
          const row = f.local("i32", mul(item, rowCount));
          const count = remaining(f, rows, row, rowCount);
          const first = f.local("i32", at(w, row, rowStep));
          // rows beyond the last are the first again
          const starts = Array.from({ length: rowCount }, (_, i) => {
            const start = f.local("i32", first);
            f.if(op("i32.gt_s", count, i), () => f.set(start, at(first, i32(i), rowStep)));
            return start;
          });
          f.set(ahead, at(first, i32(rowCount), rowStep));
          f.if(op("i32.gt_s", add(row, 2 * rowCount), rows), () => f.set(ahead, first));
          for (const total of totals) f.set(total, f32x4(0));
          f.set(xs, x);
          f.set(along, i32(0));
          f.for(pair, 0, k, 2 * K_BLOCK, () => {
            const steps = [remaining(f, k, pair, K_BLOCK), remaining(f, k, add(pair, K_BLOCK), K_BLOCK)] as const;
            f.if(op("i32.lt_s", steps[1], 0), () => f.set(steps[1], 0));
            const whole = steps.map((n) => f.local("i32", op("i32.and", n, -STEP))) as [Local, Local];
            for (const sum of sums.flat()) f.set(sum, f32x4(0));
            const point = (group: number): void =>
              pointers.forEach((pointer, i) => f.set(pointer, add(starts[4 * group + i]!, along)));
            const step = (blocks: readonly number[]): void => {
              for (let group = 0; group < groups; group++) {
                point(group);
                for (const block of blocks)
                  columnsOfFour(f, dtype, pointers, block * blockBytes, (column, position) =>
                    accumulate(block, group, column, position),
                  );
              }
              touch(blocks.length);
              f.advance(along, STEP * bytes);
              f.advance(xs, 4 * STEP);
            };
            f.for(p, 0, whole[1], STEP, () => step([0, 1]));
            f.for(p, p, whole[0], STEP, () => step([0]));
            for (const block of [0, 1]) {
              f.set(along, mul(add(pair, whole[block]!), bytes));
              f.set(xs, add(x, mul(add(pair, whole[block]!), 4)));
              f.for(p, whole[block]!, steps[block]!, 1, () => {
                for (let group = 0; group < groups; group++) {
                  point(group);
                  const lanes = pointers.map((pointer) =>
                    f.local("v128", loadOne(f, dtype, pointer, block * blockBytes)),
                  );
                  accumulate(block, group, transposed(f, lanes, f.locals(4, "v128"))[0]!, 0);
                }
                f.advance(along, bytes);
                f.advance(xs, 4);
              });
            }
            f.set(along, mul(add(pair, 2 * K_BLOCK), bytes));
            f.set(xs, add(x, mul(add(pair, 2 * K_BLOCK), 4)));
            for (const block of sums)
              block.forEach((sum, group) => f.set(totals[group]!, op("f32x4.add", totals[group]!, sum)));
          });
          const target = f.local("i32", at(out, row, i32(4)));
          for (let i = 0; i < rowCount; i++)
            f.if(op("i32.gt_s", count, i), () =>
              f.storeLane("v128.store32_lane", target, totals[Math.floor(i / 4)]!, i % 4, 4 * i),
            );
        });
        // so that the engine cannot leave out the reading
        f.if(op("i32.eq", touched, 0x5a5a5a5b), () => f.set(touched, 0));
      },
    );
  },
});

/** Gives the STEP columns of the four rows at `pointers` + `offset`, in order, as float32 vectors of four lanes. */
function columnsOfFour(
  f: FunctionBuilder,
  dtype: FloatDType,
  pointers: readonly Local[],
  offset: number,
  use: (column: Expr, position: number) => void,
): void {
  const x = f.locals(4, "v128");
  const t = f.locals(4, "v128");
  if (dtype === "float32") {
    for (const half of [0, 4]) {
      // a branch that is never taken: TurboFan would move the loads of all steps here, and run out of registers
      f.block(() => {
        f.leaveIf(op("i32.eqz", pointers[0]!), 0);
        x.forEach((lanes, i) => f.set(lanes, load("v128.load", pointers[i]!, offset + 4 * half)));
        transposed(f, x, t).forEach((column, i) => use(column, half + i));
      });
    }
    return;
  }
  f.block(() => {
    f.leaveIf(op("i32.eqz", pointers[0]!), 0);
    x.forEach((lanes, i) => f.set(lanes, load("v128.load", pointers[i]!, offset)));
    const [a, b, c, d] = x as [Local, Local, Local, Local];
    const interleaved = (y: Local, z: Local, half: number): Expr => shuffleBytes(y, z, pairs(half));
    [interleaved(a, b, 0), interleaved(c, d, 0), interleaved(a, b, 1), interleaved(c, d, 1)].forEach((pair, i) =>
      f.set(t[i]!, pair),
    );
    for (const quarter of [0, 1, 2, 3]) {
      const [ab, cd] = quarter < 2 ? [t[0]!, t[1]!] : [t[2]!, t[3]!];
      const two = f.local("v128", quarter % 2 === 0 ? shuffle(ab, cd, 0, 4, 1, 5) : shuffle(ab, cd, 2, 6, 3, 7));
      for (const half of [0, 1]) use(widenHalf(f, dtype, two, half), 2 * quarter + half);
    }
  });
}

/** The 16-bit elements of half of x and half of y, in turn. */
const pairs = (half: number): number[] =>
  Array.from({ length: 4 }, (_, i) => 2 * i + 8 * half).flatMap((byte) => [byte, byte + 1, byte + 16, byte + 17]);

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
