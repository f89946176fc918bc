import type { View } from "../../../backend.ts";
import { contiguousLayout, expandLayout } from "../../../layout.ts";
import type { OpAttrs } from "../../../op.ts";
import { collapse } from "../../cpu/strided.ts";
import { type Expr, add, at, load, mul, op, shuffle, sub } from "../asm/expression.ts";
import type { FunctionBuilder, Local } from "../asm/function.ts";
import { type Engine, type ModuleDefinition, addressOf, rowsOf } from "../engine.ts";
import { type Lanes, Vectors } from "../vectors.ts";

/** Axes over which cos and sin may lie with strides of their own: batch, head, position. */
const AXES = 3;

/**
 * Each pair of a row of x, (i, i + half) or interleaved (2i, 2i + 1), turned by its angle. x and out [..., 2·half], cos and sin
 * broadcast to [..., half], float32. False when one angle serves a whole row, or cos and sin lie over more than three axes.
 */
export function rope(
  engine: Engine,
  out: View,
  [x, cos, sin]: readonly View[],
  { interleaved }: OpAttrs["rope"],
): boolean {
  const [items, width] = rowsOf(x!);
  const half = width / 2;
  const shape = x!.layout.shape.with(-1, half);
  const angles = expandLayout(contiguousLayout(cos!.layout.shape), shape);
  if (half > 1 && angles.strides.at(-1) === 0) return false;
  const rows = shape.slice(0, -1);
  const nest = collapse(rows, [{ shape: rows, strides: angles.strides.slice(0, -1), offset: 0 }]);
  const sizes = [...nest.sizes, nest.n];
  const strides = [...nest.strides[0]!, nest.steps[0]!];
  if (sizes.length > AXES) return false;
  const pad = Array.from({ length: AXES - sizes.length }, () => 1);
  const over = [...pad, ...sizes];
  const steps = [...pad, ...strides].map((stride) => 4 * stride);
  const args = [addressOf(out), addressOf(x!), addressOf(cos!), addressOf(sin!), half, over[1]!, over[2]!, ...steps];
  engine.run(ROPE, interleaved ? "interleaved" : "halves", args, { items, work: 3 * width });
  return true;
}

const PARAMS = {
  out: "i32",
  x: "i32",
  cos: "i32",
  sin: "i32",
  half: "i32",
  size1: "i32",
  size2: "i32",
  step0: "i32",
  step1: "i32",
  step2: "i32",
} as const;

const ROPE: ModuleDefinition = {
  build(m, { madd }) {
    m.kernel("halves", PARAMS, (f, { out, x, cos, sin, half, from, to, ...nest }) => {
      // eight loads come before the first use: more than two vectors would not fit 15 registers
      const v = new Vectors(f, 2, madd);
      const bytes = f.local("i32", mul(half, 4));
      forAngles(f, from, to, nest, (row, angle) => {
        const [c, s] = [f.local("i32", add(cos, angle)), f.local("i32", add(sin, angle))];
        const [p, y] = [f.local("i32", at(x, row, mul(bytes, 2))), f.local("i32", at(out, row, mul(bytes, 2)))];
        const [p2, y2] = [f.local("i32", add(p, bytes)), f.local("i32", add(y, bytes))];
        const end = f.local("i32", p2);
        v.walk(p, end, [p2, y, y2, c, s], (u) => {
          const [y1, turned] = turn(u, u.load(p), u.load(p2), u.load(c), u.load(s));
          u.store(y, y1);
          u.store(y2, turned);
        });
      });
    });
    m.kernel("interleaved", PARAMS, (f, { out, x, cos, sin, half, from, to, ...nest }) => {
      const v = new Vectors(f, 1, madd);
      const bytes = f.local("i32", mul(half, 4));
      forAngles(f, from, to, nest, (row, angle) => {
        const [c, s] = [f.local("i32", add(cos, angle)), f.local("i32", add(sin, angle))];
        const [p, y] = [f.local("i32", at(x, row, mul(bytes, 2))), f.local("i32", at(out, row, mul(bytes, 2)))];
        const whole = f.local("i32", add(c, op("i32.and", bytes, -16)));
        const end = f.local("i32", add(c, bytes));
        f.while(c, whole, 16, [s], () => {
          const [low, high] = [v.load(p)[0]!, v.load(p, { offset: 16 })[0]!];
          const x1 = v.each(() => shuffle(low, high, 0, 2, 4, 6));
          const x2 = v.each(() => shuffle(low, high, 1, 3, 5, 7));
          const [y1, y2] = turn(v, x1, x2, v.load(c), v.load(s));
          f.store("v128.store", y, shuffle(y1[0]!, y2[0]!, 0, 4, 1, 5));
          f.store("v128.store", y, shuffle(y1[0]!, y2[0]!, 2, 6, 3, 7), 16);
          f.advance(p, 32);
          f.advance(y, 32);
        });
        f.while(c, end, 4, [s], () => {
          const [x1, x2] = [v.splat(load("f32.load", p)), v.splat(load("f32.load", p, 4))];
          const [y1, y2] = turn(v, x1, x2, v.splat(load("f32.load", c)), v.splat(load("f32.load", s)));
          f.storeLane("v128.store32_lane", y, y1[0]!, 0);
          f.storeLane("v128.store32_lane", y, y2[0]!, 0, 4);
          f.advance(p, 8);
          f.advance(y, 8);
        });
      });
    });
  },
};

/** (x₁·cos − x₂·sin, x₂·cos + x₁·sin) */
function turn(v: Vectors, x1: Lanes, x2: Lanes, c: Lanes, s: Lanes): readonly [Lanes, Lanes] {
  return [v.nmadd(x2, s, v.mul(x1, c)), v.madd(x1, s, v.mul(x2, c))];
}

/** Runs `body` for each row of [from, to), and how many bytes into cos and sin its angles lie: counted on, as divisions are slow. */
function forAngles(
  f: FunctionBuilder,
  from: Expr,
  to: Expr,
  { size1, size2, step0, step1, step2 }: { readonly [K in "size1" | "size2" | "step0" | "step1" | "step2"]: Expr },
  body: (row: Local, angle: Local) => void,
): void {
  const outer = f.local("i32", op("i32.div_u", from, size2));
  const i2 = f.local("i32", op("i32.rem_u", from, size2));
  const i1 = f.local("i32", op("i32.rem_u", outer, size1));
  const angle = f.local("i32", mul(op("i32.div_u", outer, size1), step0));
  f.advance(angle, add(mul(i1, step1), mul(i2, step2)));
  const row = f.local("i32");
  f.for(row, from, to, 1, () => {
    body(row, angle);
    const wrap = (i: Local, size: Expr, inner: Expr, next: Expr, then: () => void): void =>
      f.if(op("i32.eq", i, size), () => {
        f.set(i, 0);
        f.advance(angle, sub(next, mul(size, inner)));
        then();
      });
    f.advance(i2, 1);
    f.advance(angle, step2);
    wrap(i2, size2, step2, step1, () => {
      f.advance(i1, 1);
      wrap(i1, size1, step1, step0, () => {});
    });
  });
}
