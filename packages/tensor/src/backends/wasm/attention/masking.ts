import { type Expr, at, f32x4, load, mul, op, sub } from "../asm/expression.ts";
import type { Local } from "../asm/function.ts";
import type { Callee, ModuleBuilder } from "../asm/module.ts";
import { multiplyAdd } from "../vectors.ts";
import { REACH } from "./masks.ts";
import { PANEL, ROW } from "./panels.ts";

/**
 * (reach, panel, fill): panel[s − first, i] = fill where query i may not attend to key s, 0 where it may attend nowhere; keys that all
 * queries may attend to are left alone.
 */
export function buildMasking(m: ModuleBuilder): Callee {
  return m.function(["i32", "i32", "f32"], (f, ...params) => {
    const [reach, panel, fill] = params as [Local, Local, Local];
    const fills = f.local("v128", op("f32x4.splat", fill));
    const nowhere = [0, 16].map((half) => f.local("v128", load("v128.load", reach, REACH.NOWHERE + half)));
    const rows = Array.from({ length: PANEL }, () => f.local("i32"));
    const [s, p] = f.locals(2, "i32") as [Local, Local];
    const first = f.local("i32", load("i32.load", reach, REACH.FIRST));
    for (const [from, to] of [
      [REACH.FIRST, REACH.FULL],
      [REACH.FULL_END, REACH.LAST],
    ] as const) {
      const start = f.local("i32", load("i32.load", reach, from));
      const end = f.local("i32", load("i32.load", reach, to));
      rows.forEach((row, lane) => f.set(row, at(load("i32.load", reach, REACH.ROWS + 4 * lane), start, 4)));
      f.set(p, at(panel, sub(start, first), 4 * PANEL));
      f.for(s, start, end, 1, () => {
        for (const half of [0, 1]) {
          const allowed = f.local("v128", f32x4(0));
          for (let lane = 0; lane < 4; lane++) f.loadLane(allowed, rows[4 * half + lane]!, lane);
          const x = load("v128.load", p, 16 * half);
          const kept = op("v128.bitselect", fills, x, op("i32x4.eq", allowed, f32x4(0)));
          f.store("v128.store", p, op("v128.andnot", kept, nowhere[half]!), 16 * half);
        }
        for (const row of rows) f.advance(row, 4);
        f.advance(p, 4 * PANEL);
      });
    }
  });
}

/**
 * (reach, a, width, panel, out): out[e, i] = Σ_s a[s, e]·panel[s − first, i] over the keys s that query i may attend to, all where it
 * may attend nowhere: `mix` where a forbidden row of `a` holds what 0 does not silence, NaN or infinities.
 */
export function buildMixAllowed(m: ModuleBuilder, madd: boolean): Callee {
  return m.function(["i32", "i32", "i32", "i32", "i32"], (f, ...params) => {
    const [reach, a, width, panel, out] = params as [Local, Local, Local, Local, Local];
    const [lane, s, e, row] = f.locals(4, "i32") as [Local, Local, Local, Local];
    const [first, last] = [REACH.FIRST, REACH.LAST].map((offset) =>
      f.local("i32", load("i32.load", reach, offset)),
    ) as [Local, Local];
    const ofLane = (offset: number): Expr => load("i32.load", at(reach, lane, 4), offset);
    const element = (address: Expr): Expr => load("v128.load32_zero", address);
    f.zero(out, mul(width, ROW));
    f.for(lane, 0, PANEL, 1, () =>
      f.for(s, first, last, 1, () => {
        f.set(row, op("i32.or", load("i32.load", at(ofLane(REACH.ROWS), s, 4)), ofLane(REACH.NOWHERE)));
        f.if(row, () => {
          const weight = f.local("v128", element(at(at(panel, sub(s, first), ROW), lane, 4)));
          f.for(e, 0, width, 1, () => {
            const to = f.local("i32", at(at(out, e, ROW), lane, 4));
            const x = element(at(a, op("i32.add", mul(sub(s, first), width), e), 4));
            f.storeLane("v128.store32_lane", to, multiplyAdd(madd, x, weight, element(to)), 0);
          });
        });
      }),
    );
  });
}
