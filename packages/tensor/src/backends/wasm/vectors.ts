import { addressOfBits, addressOfFloat } from "./constants.ts";
import { type Expr, add, f32x4, lane, load, mul, op, shuffle, sub, withLane } from "./asm/expression.ts";
import type { FunctionBuilder, Local } from "./asm/function.ts";
import { type PlainOp, unsigned } from "./asm/opcodes.ts";

/** Vectors of four lanes that are computed side by side, one instruction of each in turn. */
export type Lanes = readonly Local[];

/**
 * Writes float32 SIMD code for `width` vectors at once: long chains of one vector hide behind those of the others. With `madd`,
 * a·b + c rounds once (relaxed_madd on a processor with FMA), else twice.
 */
export class Vectors {
  readonly f: FunctionBuilder;
  readonly width: number;
  readonly madds: boolean;
  readonly #constants: Map<number, Local>;
  /** How many lanes, 1 to 3, are there at the end of a row; null before that. */
  readonly #rest: Local | null;

  constructor(
    f: FunctionBuilder,
    width: number,
    madds: boolean,
    constants = new Map<number, Local>(),
    rest: Local | null = null,
  ) {
    this.f = f;
    this.width = width;
    this.madds = madds;
    this.#constants = constants;
    this.#rest = rest;
  }

  /**
   * Walks the float32 in [p, end): `width` vectors at a time, then one, then the one to three lanes that are left; `p` and `others`
   * advance. `body` gets the vectors to use for each: their `load` and `store` touch nothing outside the row.
   */
  walk(p: Local, end: Expr, others: readonly Local[], body: (v: Vectors) => void): void {
    const { f, width } = this;
    const [stop, rest] = f.locals(2, "i32") as [Local, Local];
    for (const each of width > 1 ? [this, new Vectors(f, 1, this.madds, this.#constants)] : [this]) {
      f.set(stop, add(p, op("i32.and", sub(end, p), -16 * each.width)));
      f.while(p, stop, 16 * each.width, others, () => body(each));
    }
    f.set(rest, op("i32.shr_u", sub(end, p), 2));
    f.if(rest, () => {
      body(new Vectors(f, 1, this.madds, this.#constants, rest));
      for (const each of [p, ...others]) f.set(each, add(each, mul(rest, 4)));
    });
  }

  /** One instruction on each vector. */
  each(compute: (i: number) => Expr): Lanes {
    return Array.from({ length: this.width }, (_, i) => this.f.local("v128", compute(i)));
  }
  apply(name: PlainOp, ...operands: readonly (Lanes | number)[]): Lanes {
    return this.each((i) => op(name, ...operands.map((x) => (typeof x === "number" ? x : x[i]!))));
  }
  /** target = value, vector by vector; a wider target keeps the rest. */
  assign(target: Lanes, value: Lanes): void {
    value.forEach((x, i) => this.f.set(target[i]!, x));
  }

  /** One float32 in all lanes, loaded before the kernel begins. */
  constant(x: number): Lanes {
    return this.#hoisted(addressOfFloat(x));
  }
  /** One int32, or the bits of a float32, in all lanes. */
  bits(x: number): Lanes {
    return this.#hoisted(addressOfBits(x | 0));
  }
  #hoisted(address: number): Lanes {
    let local = this.#constants.get(address);
    if (!local) {
      local = this.f.local("v128");
      this.f.prologue.push([load("v128.load32_splat", address).code, 0x21, unsigned(local.index)]);
      this.#constants.set(address, local);
    }
    return this.same(local);
  }
  /** The same vector `width` times. */
  same(x: Local): Lanes {
    return Array.from({ length: this.width }, () => x);
  }
  /** An f32 in all lanes. */
  splat(x: Expr): Lanes {
    return this.same(this.f.local("v128", op("f32x4.splat", x)));
  }
  /** Accumulators, 0 at this point of the code. */
  zeros(): Lanes {
    return this.each(() => f32x4(0));
  }

  add(a: Lanes, b: Lanes): Lanes {
    return this.apply("f32x4.add", a, b);
  }
  sub(a: Lanes, b: Lanes): Lanes {
    return this.apply("f32x4.sub", a, b);
  }
  mul(a: Lanes, b: Lanes): Lanes {
    return this.apply("f32x4.mul", a, b);
  }
  div(a: Lanes, b: Lanes): Lanes {
    return this.apply("f32x4.div", a, b);
  }
  /** a·b + c */
  madd(a: Lanes, b: Lanes, c: Lanes): Lanes {
    return this.each((i) => multiplyAdd(this.madds, a[i]!, b[i]!, c[i]!));
  }
  /** c − a·b */
  nmadd(a: Lanes, b: Lanes, c: Lanes): Lanes {
    return this.madds
      ? this.apply("f32x4.relaxed_nmadd", a, b, c)
      : this.each((i) => op("f32x4.sub", c[i]!, op("f32x4.mul", a[i]!, b[i]!)));
  }
  /** mask ? a : b, bit by bit. */
  select(mask: Lanes, a: Lanes, b: Lanes): Lanes {
    return this.each((i) => op("v128.bitselect", a[i]!, b[i]!, mask[i]!));
  }

  /** What lies at p + offset; lanes beyond the end of the row are `fill`. */
  load(p: Local, { offset = 0, fill = 0 } = {}): Lanes {
    const rest = this.#rest;
    if (!rest) return this.each((i) => load("v128.load", p, offset + 16 * i));
    const { f } = this;
    const x = f.local("v128", f32x4(fill));
    f.loadLane(x, p, 0, offset);
    for (const i of [1, 2]) f.if(op("i32.gt_s", rest, i), () => f.loadLane(x, p, i, offset + 4 * i));
    return [x];
  }
  /** x with 0 in the lanes beyond the end of the row. */
  inRow(x: Lanes): Lanes {
    if (!this.#rest) return x;
    const lanes = this.f.local("v128", op("i32x4.splat", this.#rest));
    return this.each((i) => op("v128.and", x[i]!, op("i32x4.gt_s", lanes, LANE_NUMBERS)));
  }
  store(p: Local, x: Lanes, offset = 0): void {
    const rest = this.#rest;
    const { f } = this;
    if (!rest) return x.forEach((vector, i) => f.store("v128.store", p, vector, offset + 16 * i));
    f.storeLane("v128.store32_lane", p, x[0]!, 0, offset);
    for (const i of [1, 2])
      f.if(op("i32.gt_s", rest, i), () => f.storeLane("v128.store32_lane", p, x[0]!, i, offset + 4 * i));
  }

  /** What lies at p, p + step, p + 2·step …, a lane each; p moves past them. */
  gather(p: Local, step: Expr): Lanes {
    const { f } = this;
    return this.each(() => {
      const x = f.local("v128", load("v128.load32_zero", p));
      f.advance(p, step);
      this.#eachLane(1, (lane) => {
        f.loadLane(x, p, lane);
        f.advance(p, step);
      });
      return x;
    });
  }
  /** Stores the lanes at p, p + step, …; p moves past them. */
  scatter(p: Local, step: Expr, x: Lanes): void {
    const { f } = this;
    x.forEach((vector) =>
      this.#eachLane(0, (lane) => {
        f.storeLane("v128.store32_lane", p, vector, lane);
        f.advance(p, step);
      }),
    );
  }
  /** `body` for each lane of a vector that is there, from lane `first` on. */
  #eachLane(first: number, body: (lane: number) => void): void {
    for (let lane = first; lane < 4; lane++) {
      if (!this.#rest || lane === 0) body(lane);
      else if (lane < 3) this.f.if(op("i32.gt_s", this.#rest, lane), () => body(lane));
    }
  }
  /** compute(lane of each operand) in each lane: for what has no SIMD instruction. */
  laneByLane(compute: (...lanes: Expr[]) => Expr, ...operands: readonly Lanes[]): Lanes {
    return this.each((i) => {
      const y = this.f.local("v128");
      for (let l = 0; l < 4; l++) this.f.set(y, withLane(y, l, compute(...operands.map((x) => lane(x[i]!, l)))));
      return y;
    });
  }

  /** The sum of all lanes of all vectors, as f32, always in one order. */
  total(x: Lanes): Expr {
    return this.#fold(x, "f32x4.add");
  }
  /** The largest lane, as f32; NaN wins. */
  largest(x: Lanes): Expr {
    return this.#fold(x, "f32x4.max");
  }
  /** The smallest lane, as f32; NaN wins. */
  smallest(x: Lanes): Expr {
    return this.#fold(x, "f32x4.min");
  }
  #fold(x: Lanes, combine: PlainOp): Expr {
    let sums: readonly Expr[] = x;
    while (sums.length > 1) {
      const half = Math.ceil(sums.length / 2);
      sums = sums
        .slice(0, half)
        .map((s, i) => (half + i < sums.length ? op(combine, s, (sums as Expr[])[half + i]!) : s));
    }
    const four = this.f.local("v128", sums[0]);
    const two = this.f.local("v128", op(combine, four, shuffle(four, four, 2, 3, 2, 3)));
    return lane(op(combine, two, shuffle(two, two, 1, 1, 1, 1)), 0);
  }
}

/** 0, 1, 2, 3 */
const LANE_NUMBERS: Expr = {
  type: "v128",
  code: [0xfd, 0x0c, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0],
};

/** a·b + c of vectors, rounded once or twice. */
export const multiplyAdd = (madds: boolean, a: Expr, b: Expr, c: Expr): Expr =>
  madds ? op("f32x4.relaxed_madd", a, b, c) : op("f32x4.add", op("f32x4.mul", a, b), c);
