import { type Expr, add, at, f32, f32x4, i32, lane, load, mul, op, select, sub } from "../asm/expression.ts";
import type { Local } from "../asm/function.ts";
import type { Callee, ModuleBuilder } from "../asm/module.ts";
import { expOfNegative } from "../vectorMath.ts";
import { Vectors, multiplyAdd } from "../vectors.ts";
import { REACH } from "./masks.ts";
import { transposed } from "./panels.ts";
import { buildCap } from "./scores.ts";

/** Panels of at most this many queries are faster one by one. */
export const FEW = 2;
/** Keys of a tile, in lanes: with the next tile they fit in the first cache up to 256 columns. */
const TILE = 8;
/** Columns of a step of a tile. */
const STEP = 8;

/**
 * (reach, query, q, k, D, v, E, n, scale, softcap, scratch, out): the result of query number `query` of a panel, with the sums that
 * it has among others, in a fraction of the work: a new token waits for the memory of its keys and values alone.
 * k [n, D] and v [n, E] begin with the first key in reach; scratch [n + D].
 */
export function buildOneQuery(m: ModuleBuilder, madd: boolean): Callee {
  const dots = buildDots(m, madd);
  const cap = buildCap(m, madd);
  const mask = buildMask(m);
  const softmax = buildSoftmax(m, madd);
  const mix = buildMix(m, madd);
  const params = ["i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "f32", "f32", "i32", "i32"] as const;
  return m.function(params, (f, ...locals) => {
    const [reach, query, q, k, D, v, E] = locals as unknown as [Local, Local, Local, Local, Local, Local, Local];
    const [n, scale, softcap, weights, out] = locals.slice(7) as [Local, Local, Local, Local, Local];
    const scaled = f.local("i32", at(weights, n, i32(4)));
    const [factor, d] = [f.local("f32"), f.local("i32")];
    const scaleRow = (to: Expr, from: Expr, width: Expr, by: Expr): void =>
      f.for(d, 0, width, 1, () =>
        f.store("f32.store", at(to, d, i32(4)), op("f32.mul", load("f32.load", at(from, d, i32(4))), by)),
      );
    scaleRow(scaled, q, D, scale);
    f.call(dots, k, D, scaled, weights, n);
    f.if(op("f32.ne", softcap, 0), () => f.call(cap, weights, n, softcap, weights));
    f.call(mask, reach, query, weights);
    f.call(softmax, weights, n, scaled);
    f.set(factor, load("f32.load", scaled));
    f.call(mix, v, E, weights, out, n);
    scaleRow(out, out, E, factor);
  });
}

/** (a, width, q, out, n): out[r] = Σ_d a[r, d]·q[d] for n rows of a [n, width]. */
function buildDots(m: ModuleBuilder, madd: boolean): Callee {
  /** (a, width, q, out, count, ahead): the first `count` of the tile's rows; a whole tile touches as much from `ahead` as it reads. */
  const tile = (rows: number): Callee =>
    m.function(["i32", "i32", "i32", "i32", "i32", "i32"], (f, ...params) => {
      const [a, width, q, out, count, ahead] = params as [Local, Local, Local, Local, Local, Local];
      const [d, touched] = f.locals(2, "i32") as [Local, Local];
      const whole = f.local("i32", op("i32.and", width, -STEP));
      const sums = f.locals(rows / 4, "v128");
      const p = f.locals(4, "i32");
      /** Four rows from column d on; the last row stands for those that are not there. */
      const point = (group: number): void =>
        p.forEach((pointer, i) => {
          const row = rows === TILE ? i32(4 * group + i) : select(op("i32.gt_s", count, i), i32(i), sub(count, 1));
          f.set(pointer, at(a, add(mul(row, width), d), i32(4)));
        });
      const accumulate = (group: number, column: Expr, position: number): void =>
        f.set(sums[group]!, multiplyAdd(madd, load("v128.load32_splat", q, 4 * position), column, sums[group]!));
      f.for(d, 0, whole, STEP, () => {
        sums.forEach((_, group) => {
          point(group);
          for (const half of [0, 4]) {
            // never left: it ends the basic block, of which TurboFan puts all loads first
            f.block(() => {
              f.leaveIf(op("i32.eqz", p[0]!), 0);
              const rowsOfFour = p.map((pointer) => load("v128.load", pointer, 4 * half));
              transposed(f, rowsOfFour).forEach((column, i) => accumulate(group, column, half + i));
            });
          }
        });
        if (rows === TILE) {
          // line by line in ascending order, so that the processor prefetches: 12 GB/s of DRAM, 8 without
          for (let line = 0; line < 4 * STEP * TILE; line += 64)
            f.set(touched, op("i32.xor", touched, load("i32.load", ahead, line)));
          f.advance(ahead, 4 * STEP * TILE);
        }
        f.advance(q, 4 * STEP);
      });
      f.for(d, whole, width, 1, () => {
        sums.forEach((_, group) => {
          point(group);
          const column = f.local("v128", f32x4(0));
          p.forEach((pointer, i) => f.loadLane(column, pointer, i));
          accumulate(group, column, 0);
        });
        f.advance(q, 4);
      });
      for (let row = 0; row < rows; row++) {
        const store = (): void => f.storeLane("v128.store32_lane", out, sums[row >> 2]!, row & 3, 4 * row);
        if (rows === TILE) store();
        else f.if(op("i32.gt_s", count, row), store);
      }
      // so that V8 cannot leave out the touching
      f.if(op("i32.eq", touched, 0x5a5a5a5b), () => f.set(ahead, 0));
    });
  const [large, small] = [tile(TILE), tile(4)];
  return m.function(["i32", "i32", "i32", "i32", "i32"], (f, ...params) => {
    const [a, width, q, out, n] = params as [Local, Local, Local, Local, Local];
    const r = f.local("i32");
    const whole = f.local("i32", op("i32.and", n, -TILE));
    const rowAt = (index: Expr): Expr => at(a, mul(index, width), 4);
    const call = (product: Callee, ahead: Expr): void =>
      f.call(product, rowAt(r), width, q, at(out, r, i32(4)), sub(n, r), rowAt(ahead));
    f.for(r, 0, whole, TILE, () => {
      call(large, add(r, select(op("i32.le_s", add(r, 2 * TILE), n), i32(TILE), i32(0))));
    });
    f.for(r, whole, n, 4, () => call(small, r));
  });
}

/** (reach, query, weights): weights[s − first] = −Infinity where the query may not attend to key s, 0 for all where it may attend nowhere. */
function buildMask(m: ModuleBuilder): Callee {
  return m.function(["i32", "i32", "i32"], (f, ...params) => {
    const [reach, query, weights] = params as [Local, Local, Local];
    const field = (offset: number, of: Expr = reach): Local => f.local("i32", load("i32.load", of, offset));
    const own = at(reach, query, i32(4));
    const [row, nowhere, first] = [field(REACH.ROWS, own), field(REACH.NOWHERE, own), field(REACH.FIRST)];
    const forbidden = f.local("f32", select(nowhere, f32(0), f32(-Infinity)));
    const s = f.local("i32");
    for (const [from, to] of [
      [REACH.FIRST, REACH.FULL],
      [REACH.FULL_END, REACH.LAST],
    ] as const) {
      f.for(s, field(from), field(to), 1, () =>
        f.if(op("i32.eqz", load("i32.load", at(row, s, i32(4)))), () =>
          f.store("f32.store", at(weights, sub(s, first), i32(4)), forbidden),
        ),
      );
    }
  });
}

/** (x, n, out): x[s] = exp(x[s] − max) in place; out[0] = 1 / Σ, in ascending order. */
function buildSoftmax(m: ModuleBuilder, madd: boolean): Callee {
  return m.function(["i32", "i32", "i32"], (f, ...params) => {
    const [x, n, out] = params as [Local, Local, Local];
    const v = new Vectors(f, 4, madd);
    const [p, end] = [f.local("i32", x), f.local("i32", at(x, n, i32(4)))];
    const largest = v.each(() => f32x4(-Infinity));
    v.walk(p, end, [], (u) => {
      u.assign(largest, u.apply("f32x4.pmax", [...largest], u.load(p, { fill: -Infinity })));
    });
    const max = v.splat(v.largest(largest));
    f.set(p, x);
    v.walk(p, end, [], (u) => u.store(p, expOfNegative(u, u.sub(u.load(p), max))));
    const total = f.local("f32");
    f.set(p, x);
    f.while(p, end, 4, [], () => f.set(total, op("f32.add", total, load("f32.load", p))));
    const four = f.local("v128", op("f32x4.div", v.constant(1)[0]!, op("f32x4.splat", total)));
    f.store("f32.store", out, lane(four, 0));
  });
}

/** (a, width, weights, out, n): out[e] = Σ_r a[r, e]·weights[r] over n rows of a [n, width]. */
function buildMix(m: ModuleBuilder, madd: boolean): Callee {
  return m.function(["i32", "i32", "i32", "i32", "i32"], (f, ...params) => {
    const [a, width, weights, out, n] = params as [Local, Local, Local, Local, Local];
    const stride = f.local("i32", mul(width, 4));
    const columns = f.local("i32", op("i32.and", width, -4));
    const [r, e, to] = f.locals(3, "i32") as [Local, Local, Local];
    const p = f.locals(4, "i32");
    /** Adds `rows` rows to out. */
    const addRows = (rows: readonly Local[]): void => {
      const splats = rows.map((_, i) => f.local("v128", load("v128.load32_splat", at(weights, r, i32(4)), 4 * i)));
      rows.forEach((row, i) => f.set(row, i === 0 ? a : add(rows[i - 1]!, stride)));
      f.set(to, out);
      for (const [start, end, size] of [
        [i32(0), columns, 4],
        [columns, width, 1],
      ] as const) {
        const read = size === 4 ? "v128.load" : "v128.load32_zero";
        f.for(e, start, end, size, () => {
          const sum = f.local("v128", load(read, to));
          rows.forEach((row, i) => f.set(sum, multiplyAdd(madd, load(read, row), splats[i]!, sum)));
          if (size === 4) f.store("v128.store", to, sum);
          else f.storeLane("v128.store32_lane", to, sum, 0);
          for (const pointer of [...rows, to]) f.advance(pointer, 4 * size);
        });
      }
      f.set(a, at(a, stride, i32(rows.length)));
    };
    const whole = f.local("i32", op("i32.and", n, -4));
    f.zero(out, stride);
    f.for(r, 0, whole, 4, () => addRows(p));
    f.for(r, whole, n, 1, () => addRows(p.slice(0, 1)));
  });
}
