import { BYTES_PER_ELEMENT } from "../../../dtype.ts";
import { type Expr, add, at, i32, mul, op, shuffle, sub } from "../asm/expression.ts";
import type { FunctionBuilder, Local } from "../asm/function.ts";
import type { Callee, ModuleBuilder } from "../asm/module.ts";
import { type FloatDType, loadFour, loadOne } from "../widening.ts";

/** How a matrix lies in memory, seen from its panels: along k, along the panel, or neither. */
export type Order = "alongK" | "alongPanel" | "strided";

/** Sums are kept apart by k mod PHASES, and added up one after the other at the end of a block of k. */
export const PHASES = 4;

/**
 * A function (to, from, panelStep, kStep, k, count) that packs a panel as float32 [PHASES][⌈k / PHASES⌉][width]: element r of step p
 * comes from from[r·panelStep + p·kStep], steps in bytes, and goes to phase p mod PHASES. What is missing at the end of a phase, and
 * elements count … width − 1, are 0.
 */
export function packer(m: ModuleBuilder, width: number, dtype: FloatDType, order: Order): Callee {
  return m.function(["i32", "i32", "i32", "i32", "i32", "i32"], (f, ...params) => {
    const [to, from, panelStep, kStep, k, count] = params as Params;
    const steps = f.local("i32", stepsOf(k));
    const panel: Panel = {
      width,
      dtype,
      to,
      from,
      panelStep,
      kStep,
      k,
      count,
      phase: f.local("i32", mul(steps, 4 * width)),
    };
    f.if(op("i32.or", op("i32.lt_s", count, width), op("i32.rem_u", k, i32(PHASES))), () =>
      f.zero(to, mul(panel.phase, PHASES)),
    );
    if (order === "alongK") packTransposed(f, panel);
    else if (order === "alongPanel") packRows(f, panel);
    else packElements(f, panel, i32(0));
  });
}

/** Steps of a phase of k. */
export const stepsOf = (k: Expr): Expr => op("i32.div_u", add(k, PHASES - 1), i32(PHASES));

type Params = [to: Local, from: Local, panelStep: Local, kStep: Local, k: Local, count: Local];

interface Panel {
  readonly width: number;
  readonly dtype: FloatDType;
  readonly to: Local;
  readonly from: Local;
  readonly panelStep: Local;
  readonly kStep: Local;
  readonly k: Local;
  readonly count: Local;
  /** Bytes of a phase. */
  readonly phase: Local;
}

/** Elements first … count − 1 of every step, one by one. */
function packElements(f: FunctionBuilder, panel: Panel, first: Expr): void {
  const { width, dtype, to, from, panelStep, kStep, k, count, phase } = panel;
  const [r, p, source] = f.locals(3, "i32") as [Local, Local, Local];
  f.for(r, first, count, 1, () => {
    f.set(source, at(from, r, panelStep));
    const column = f.local("i32", at(to, r, i32(4)));
    f.for(p, 0, k, 1, () => {
      const inPhase = at(column, op("i32.and", p, PHASES - 1), phase);
      const target = at(inPhase, op("i32.shr_u", p, 2), i32(4 * width));
      f.storeLane("v128.store32_lane", target, loadOne(f, dtype, source), 0);
      f.advance(source, kStep);
    });
  });
}

/** Calls `whole` for each four steps of k, then `one` for each of those that are left; `targets` is where the phases go on. */
function eachStep(
  f: FunctionBuilder,
  { width, k }: Panel,
  targets: readonly Local[],
  whole: () => void,
  one: (i: number) => void,
): void {
  const p = f.local("i32");
  const wholeK = f.local("i32", op("i32.and", k, -PHASES));
  f.for(p, 0, wholeK, PHASES, () => {
    whole();
    for (const target of targets) f.advance(target, 4 * width);
  });
  for (let i = 0; i < PHASES - 1; i++) f.if(op("i32.gt_s", k, add(wholeK, i)), () => one(i));
}

/** k is contiguous: blocks of 4 elements of the panel × 4 steps, transposed in registers; a full panel of B all blocks side by side. */
function packTransposed(f: FunctionBuilder, panel: Panel): void {
  const { width, count } = panel;
  const r = f.local("i32");
  const eachBlock = (): void => {
    const wholeCount = f.local("i32", op("i32.and", count, -4));
    f.for(r, 0, wholeCount, 4, () => packBlocks(f, panel, r, 1));
    f.if(
      op("i32.eq", sub(count, wholeCount), 2),
      () => packPair(f, panel, wholeCount),
      () => packElements(f, panel, wholeCount),
    );
  };
  if (width % 4 !== 0) return eachBlock();
  f.if(op("i32.eq", count, width), () => packBlocks(f, panel, i32(0), width / 4), eachBlock);
}

/** Steps of k that are read of a row at once: a cache line of float32. */
const LINE = 16;

/**
 * Transposes `blocks` blocks of four elements from element r on, all of k. Rows are read a whole cache line at a time: the processor
 * then prefetches all of them side by side, 20 GB/s from memory where quarters of a line by turns reach 11.
 */
function packBlocks(f: FunctionBuilder, panel: Panel, r: Expr, blocks: number): void {
  const { dtype, k, to, from, panelStep, phase } = panel;
  const bytes = BYTES_PER_ELEMENT[dtype];
  const first = f.local("i32", at(from, r, panelStep));
  const p = f.local("i32");
  const targets = f.locals(PHASES, "i32");
  const [sources, x, t] = [f.locals(4, "i32"), f.locals(4, "v128"), f.locals(4, "v128")];
  targets.forEach((target, i) => f.set(target, i === 0 ? at(to, r, i32(4)) : add(targets[i - 1]!, phase)));
  const eachBlock = (pack: (block: number) => void): void => {
    for (let block = 0; block < blocks; block++) {
      sources.forEach((source, i) => f.set(source, i + block === 0 ? first : add(sources[(i + 3) % 4]!, panelStep)));
      pack(block);
    }
  };
  const transpose = (block: number, step: number): void => {
    // a branch that is never taken: TurboFan would move all loads of a line to its front, and run out of registers
    f.block(() => {
      f.leaveIf(op("i32.eqz", first), 0);
      x.forEach((lanes, i) => f.set(lanes, loadFour(f, dtype, sources[i]!, step * bytes)));
      const target = step * panel.width + 16 * block;
      transposed(f, x, t).forEach((lanes, i) => f.store("v128.store", targets[i]!, lanes, target));
    });
  };
  const advance = (steps: number): void => {
    f.advance(first, steps * bytes);
    for (const target of targets) f.advance(target, steps * panel.width);
  };
  const wholeLines = f.local("i32", op("i32.and", k, -LINE));
  const wholeK = f.local("i32", op("i32.and", k, -PHASES));
  f.for(p, 0, wholeLines, LINE, () => {
    eachBlock((block) => {
      for (let step = 0; step < LINE; step += PHASES) transpose(block, step);
    });
    advance(LINE);
  });
  f.for(p, wholeLines, wholeK, PHASES, () => {
    eachBlock((block) => transpose(block, 0));
    advance(PHASES);
  });
  for (let i = 0; i < PHASES - 1; i++)
    f.if(op("i32.gt_s", k, add(wholeK, i)), () =>
      eachBlock((block) =>
        sources.forEach((source, lane) =>
          f.storeLane("v128.store32_lane", targets[i]!, loadOne(f, dtype, source, i * bytes), 0, 16 * block + 4 * lane),
        ),
      ),
    );
}

/** Elements r and r + 1 of every step: what a tile of six rows has beside a block of four. */
function packPair(f: FunctionBuilder, panel: Panel, r: Local): void {
  const { dtype, to, from, panelStep, phase } = panel;
  const bytes = BYTES_PER_ELEMENT[dtype];
  const sources = [f.local("i32", at(from, r, panelStep)), f.local("i32", at(from, add(r, 1), panelStep))] as const;
  const targets = Array.from({ length: PHASES }, (_, i) => f.local("i32", at(at(to, r, i32(4)), i32(i), phase)));
  const [x, y] = f.locals(2, "v128") as [Local, Local];
  eachStep(
    f,
    panel,
    targets,
    () => {
      f.set(x, loadFour(f, dtype, sources[0]));
      f.set(y, loadFour(f, dtype, sources[1]));
      const [low, high] = [shuffle(x, y, 0, 4, 1, 5), shuffle(x, y, 2, 6, 3, 7)];
      targets.forEach((target, i) => f.storeLane("v128.store64_lane", target, i < 2 ? low : high, i % 2));
      for (const source of sources) f.advance(source, PHASES * bytes);
    },
    (i) =>
      sources.forEach((source, lane) =>
        f.storeLane("v128.store32_lane", targets[i]!, loadOne(f, dtype, source, i * bytes), 0, 4 * lane),
      ),
  );
}

/** The panel is contiguous: full panels step by step, others element by element. */
function packRows(f: FunctionBuilder, panel: Panel): void {
  const { width, dtype, to, from, kStep, count, phase } = panel;
  const bytes = BYTES_PER_ELEMENT[dtype];
  const whole = Math.floor(width / 4) * 4;
  const source = f.local("i32", from);
  const targets = Array.from({ length: PHASES }, (_, i) => f.local("i32", at(to, i32(i), phase)));
  const copyStep = (i: number): void => {
    for (let r = 0; r < whole; r += 4) f.store("v128.store", targets[i]!, loadFour(f, dtype, source, r * bytes), 4 * r);
    for (let r = whole; r < width; r++)
      f.storeLane("v128.store32_lane", targets[i]!, loadOne(f, dtype, source, r * bytes), 0, 4 * r);
    f.advance(source, kStep);
  };
  f.if(
    op("i32.eq", count, width),
    () => eachStep(f, panel, targets, () => targets.forEach((_, i) => copyStep(i)), copyStep),
    () => packElements(f, panel, i32(0)),
  );
}

/** The transpose of the 4 × 4 matrix in `x`, using `t` on the way. */
export function transposed(f: FunctionBuilder, x: readonly Local[], t: readonly Local[]): Expr[] {
  const [a, b, c, d] = x as [Local, Local, Local, Local];
  const [lowAB, highAB, lowCD, highCD] = t as [Local, Local, Local, Local];
  f.set(lowAB, shuffle(a, b, 0, 4, 1, 5));
  f.set(highAB, shuffle(a, b, 2, 6, 3, 7));
  f.set(lowCD, shuffle(c, d, 0, 4, 1, 5));
  f.set(highCD, shuffle(c, d, 2, 6, 3, 7));
  return [
    shuffle(lowAB, lowCD, 0, 1, 4, 5),
    shuffle(lowAB, lowCD, 2, 3, 6, 7),
    shuffle(highAB, highCD, 0, 1, 4, 5),
    shuffle(highAB, highCD, 2, 3, 6, 7),
  ];
}

/** What is left of `whole` after `done`, at most `most`. */
export const remaining = (f: FunctionBuilder, whole: Expr, done: Expr, most: number | Local): Local => {
  const rest = f.local("i32", sub(whole, done));
  f.if(op("i32.gt_s", rest, most), () => f.set(rest, typeof most === "number" ? i32(most) : most));
  return rest;
};
