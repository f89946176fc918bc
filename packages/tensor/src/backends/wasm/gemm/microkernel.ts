import { add, f32x4, load, mul, op } from "../asm/expression.ts";
import type { Local } from "../asm/function.ts";
import type { Callee, ModuleBuilder } from "../asm/module.ts";
import { multiplyAdd } from "../vectors.ts";

/** A register tile of C: `rows` × 4·`vectors`, and how many steps of k one pass of its loop makes. */
export interface Tile {
  readonly rows: number;
  readonly vectors: number;
  readonly unroll: number;
}

export const columnsOf = ({ vectors }: Tile): number => 4 * vectors;

/**
 * C[i, j] = Σ_k A[k, i]·B[k, j] for one tile, k ascending; added to what C holds when `accumulate` is not 0. A is packed as
 * [k][tile.rows], B as [k][tile columns]; C has rows `cStep` bytes apart. Only the first `rows` rows are computed.
 *
 * Each step of k but the last of an unrolled pass ends in a branch out of the loop: without it TurboFan (V8 up to 12) moves the loads
 * of all steps to the front of the pass and runs out of registers (27 GFLOP/s where 55 are reached). Stores of a row are adjacent, so
 * that V8's revectorizer can pair them.
 */
export function microkernel(m: ModuleBuilder, tile: Tile, rows: number, madd: boolean): Callee {
  const { vectors, unroll } = tile;
  const aBytes = 4 * tile.rows;
  const bBytes = 16 * vectors;
  return m.function(["i32", "i32", "i32", "i32", "i32", "i32"], (f, k, a, b, c, cStep, accumulate) => {
    const end = f.local("i32");
    const sums = f.locals(rows * vectors, "v128");
    const bs = f.locals(vectors, "v128");
    const splat = f.local("v128");
    for (const sum of sums) f.set(sum, f32x4(0));
    f.set(end, add(a, mul(k, aBytes)));
    const step = (at: number): void => {
      bs.forEach((x, j) => f.set(x, load("v128.load", b, at * bBytes + 16 * j)));
      for (let i = 0; i < rows; i++) {
        f.set(splat, load("v128.load32_splat", a, at * aBytes + 4 * i));
        for (let j = 0; j < vectors; j++) {
          const sum = sums[i * vectors + j]!;
          f.set(sum, multiplyAdd(madd, splat, bs[j]!, sum));
        }
      }
    };
    f.block(() =>
      f.repeat(() => {
        for (let at = 0; at < unroll; at++) {
          step(at);
          if (at < unroll - 1) f.leaveIf(op("i32.eq", add(a, (at + 1) * aBytes), end), 1);
        }
        f.advance(b, unroll * bBytes);
        f.advance(a, unroll * aBytes);
        return op("i32.lt_u", a, end);
      }),
    );
    const row = (i: number): Local[] => sums.slice(i * vectors, (i + 1) * vectors);
    const storeRows = (prepare: (sums: readonly Local[]) => readonly Local[]): void => {
      for (let i = 0; i < rows; i++) {
        prepare(row(i)).forEach((x, j) => f.store("v128.store", c, x, 16 * j));
        if (i < rows - 1) f.advance(c, cStep);
      }
    };
    f.if(
      accumulate,
      () =>
        storeRows((sums) => {
          bs.forEach((x, j) => f.set(x, load("v128.load", c, 16 * j)));
          bs.forEach((x, j) => f.set(x, op("f32x4.add", x, sums[j]!)));
          return bs;
        }),
      () => storeRows((sums) => sums),
    );
  });
}
