import { add, f32x4, load, mul, op } from "../asm/expression.ts";
import type { Local } from "../asm/function.ts";
import type { Callee, ModuleBuilder } from "../asm/module.ts";
import { multiplyAdd } from "../vectors.ts";
import { PHASES } from "./pack.ts";

/** A register tile of C: `rows` × 4·`vectors`, and how many steps of k one pass of its loop makes. */
export interface Tile {
  readonly rows: number;
  readonly vectors: number;
  readonly unroll: number;
}

export const columnsOf = ({ vectors }: Tile): number => 4 * vectors;

/**
 * (steps, A, B, C, cStep, accumulate): C[i, j] = Σ_p A[p, i]·B[p, j] for one tile, a phase of p after the other, in each ascending;
 * added to what C holds when `accumulate` is not 0. A is packed as [PHASES][steps][tile.rows], B as [PHASES][steps][tile columns];
 * C has rows `cStep` bytes apart. Only the first `rows` rows are computed. One call for all phases: a call each costs 2%.
 *
 * Each step of k but the last of an unrolled pass ends in a branch out of the loop: without it TurboFan (V8 up to 12) moves the loads
 * of all steps to the front of the pass and runs out of registers (27 GFLOP/s where 55 are reached). Stores of a row are adjacent, so
 * that V8's revectorizer can pair them.
 */
export function microkernel(m: ModuleBuilder, tile: Tile, rows: number, madd: boolean): Callee {
  const { vectors, unroll } = tile;
  const aBytes = 4 * tile.rows;
  const bBytes = 16 * vectors;
  return m.function(["i32", "i32", "i32", "i32", "i32", "i32"], (f, steps, a, b, c, cStep, accumulate) => {
    const end = f.local("i32");
    const right = f.local("i32");
    const target = f.local("i32");
    const sums = f.locals(rows * vectors, "v128");
    const bs = f.locals(vectors, "v128");
    const splat = f.local("v128");
    const step = (at: number): void => {
      bs.forEach((x, j) => f.set(x, load("v128.load", right, at * bBytes + 16 * j)));
      for (let i = 0; i < rows; i++) {
        f.set(splat, load("v128.load32_splat", a, at * aBytes + 4 * i));
        for (let j = 0; j < vectors; j++) {
          const sum = sums[i * vectors + j]!;
          f.set(sum, multiplyAdd(madd, splat, bs[j]!, sum));
        }
      }
    };
    const addUp = (): void => {
      for (const sum of sums) f.set(sum, f32x4(0));
      f.set(end, add(a, mul(steps, aBytes)));
      f.set(right, b);
      f.block(() =>
        f.repeat(() => {
          for (let at = 0; at < unroll; at++) {
            step(at);
            if (at < unroll - 1) f.leaveIf(op("i32.eq", add(a, (at + 1) * aBytes), end), 1);
          }
          f.advance(right, unroll * bBytes);
          f.advance(a, unroll * aBytes);
          return op("i32.lt_u", a, end);
        }),
      );
      f.set(a, end);
      f.advance(b, mul(steps, bBytes));
    };
    const row = (i: number): Local[] => sums.slice(i * vectors, (i + 1) * vectors);
    const storeRows = (prepare: (sums: readonly Local[]) => readonly Local[]): void => {
      f.set(target, c);
      for (let i = 0; i < rows; i++) {
        prepare(row(i)).forEach((x, j) => f.store("v128.store", target, x, 16 * j));
        if (i < rows - 1) f.advance(target, cStep);
      }
    };
    const addToC = (): void =>
      storeRows((sums) => {
        bs.forEach((x, j) => f.set(x, load("v128.load", target, 16 * j)));
        bs.forEach((x, j) => f.set(x, op("f32x4.add", x, sums[j]!)));
        return bs;
      });
    for (let phase = 0; phase < PHASES; phase++) {
      addUp();
      if (phase > 0) addToC();
      else f.if(accumulate, addToC, () => storeRows((sums) => sums));
    }
  });
}
