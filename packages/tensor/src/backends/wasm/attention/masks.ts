import type { View } from "../../../backend.ts";
import { contiguousLayout, expandLayout, sizeOf } from "../../../layout.ts";
import { copy } from "../../cpu/index.ts";
import { type Expr, add, at, i32, larger, load, mul, op, select, smaller, sub } from "../asm/expression.ts";
import type { FunctionBuilder, Local } from "../asm/function.ts";
import { type Engine, type ModuleDefinition, addressOf } from "../engine.ts";
import { PANEL } from "./panels.ts";

/**
 * What a panel of queries may attend to, as int32: keys [FIRST, LAST) hold all that any of them may, keys [FULL, FULL_END) all of them
 * may; one lane per query that is −1 where it may attend nowhere; the addresses of the queries' rows of the mask.
 */
export const REACH = {
  FIRST: 0,
  LAST: 4,
  FULL: 8,
  FULL_END: 12,
  NOWHERE: 16,
  ROWS: 16 + 4 * PANEL,
  BYTES: 128,
} as const;

/** Reaches in memory: panel p of image n of batch b has its own at address + b·batchBytes + n·imageBytes + p·REACH.BYTES. */
export interface Reaches {
  readonly address: number;
  readonly batchBytes: number;
  readonly imageBytes: number;
  readonly panels: number;
}

/**
 * Lends the reaches of a mask that broadcasts to [B, H, T, S]. An image is what queries of `images` equal shares of the heads see,
 * position by position, the heads of a share side by side; panels cut it into eights.
 */
export function withReaches(
  engine: Engine,
  mask: View,
  [B, H, T, S]: readonly [number, number, number, number],
  images: number,
  use: (reaches: Reaches) => void,
): void {
  if (mask.layout.shape.at(-1) !== S)
    return withKeys(engine, mask, S, (wide) => withReaches(engine, wide, [B, H, T, S], images, use));
  const [batch, head, query] = expandLayout(contiguousLayout(mask.layout.shape), [B, H, T, S]).strides as [
    number,
    number,
    number,
  ];
  const queries = (H / images) * T;
  const panels = Math.ceil(queries / PANEL);
  const [batches, imagesSeen] = [batch === 0 ? 1 : B, head === 0 ? 1 : images];
  const items = batches * imagesSeen * panels;
  engine.withTemporary(0, (items * REACH.BYTES) / 4, (address) => {
    const args = [address, addressOf(mask), 4 * batch, 4 * head, 4 * query, imagesSeen, queries, T, S, panels];
    engine.run(REACHES, "reaches", args, { items, work: PANEL * S });
    const imageBytes = panels * REACH.BYTES;
    use({
      address,
      batchBytes: batch === 0 ? 0 : imagesSeen * imageBytes,
      imageBytes: head === 0 ? 0 : imageBytes,
      panels,
    });
  });
}

/** Lends the mask with its last axis, of one element, repeated S times. */
function withKeys(engine: Engine, mask: View, S: number, use: (mask: View) => void): void {
  const shape = [...mask.layout.shape.slice(0, -1), S];
  const buffer = engine.heap.allocateIn(0, "int32", sizeOf(shape));
  try {
    const wide = { buffer, layout: contiguousLayout(shape) };
    copy(wide, { buffer: mask.buffer, layout: expandLayout(mask.layout, shape) });
    use(wide);
  } finally {
    engine.heap.free(buffer);
  }
}

const REACHES: ModuleDefinition = {
  build: (m) => {
    m.kernel(
      "reaches",
      {
        reaches: "i32",
        mask: "i32",
        batchBytes: "i32",
        headBytes: "i32",
        queryBytes: "i32",
        /** Images of a batch, queries of an image, queries of a head: an image spans the heads that share keys. */
        images: "i32",
        queries: "i32",
        T: "i32",
        S: "i32",
        panels: "i32",
      },
      (f, { reaches, mask, batchBytes, headBytes, queryBytes, images, queries, T, S, panels, from, to }) => {
        const item = f.local("i32");
        f.for(item, from, to, 1, () => {
          const reach = f.local("i32", at(reaches, item, i32(REACH.BYTES)));
          const image = f.local("i32", op("i32.div_u", item, panels));
          const firstQuery = f.local("i32", mul(op("i32.rem_u", item, panels), PANEL));
          const firstHead = f.local("i32", op("i32.div_u", mul(op("i32.rem_u", image, images), queries), T));
          const group = f.local("i32", op("i32.div_u", queries, T));
          const [first, last, full, fullEnd] = f.locals(4, "i32") as [Local, Local, Local, Local];
          f.set(first, S);
          f.set(last, 0);
          f.set(full, 0);
          f.set(fullEnd, S);
          for (let lane = 0; lane < PANEL; lane++) {
            // lanes beyond the last query stand for the last one
            const query = f.local(
              "i32",
              smaller(f.local("i32", add(firstQuery, lane)), f.local("i32", sub(queries, 1))),
            );
            const head = add(firstHead, op("i32.rem_u", query, group));
            const row = f.local("i32", at(mask, op("i32.div_u", image, images), batchBytes));
            f.set(row, at(at(row, head, headBytes), op("i32.div_u", query, group), queryBytes));
            f.store("i32.store", reach, row, REACH.ROWS + 4 * lane);
            const { start, end, holed } = runOf(f, row, S);
            const nowhere = f.local("i32", op("i32.eq", start, end));
            f.store("i32.store", reach, sub(i32(0), nowhere), REACH.NOWHERE + 4 * lane);
            f.if(nowhere, () => {
              f.set(first, 0);
              f.set(last, S);
              f.set(fullEnd, 0);
            });
            f.if(op("i32.eqz", nowhere), () => {
              f.set(first, smaller(first, start));
              f.set(last, larger(last, end));
              f.set(full, larger(full, start));
              f.set(fullEnd, select(holed, i32(0), smaller(fullEnd, end)));
            });
          }
          f.if(op("i32.ge_s", full, fullEnd), () => {
            f.set(full, last);
            f.set(fullEnd, last);
          });
          [first, last, full, fullEnd].forEach((x, i) => f.store("i32.store", reach, x, 4 * i));
        });
      },
    );
  },
};

/** The allowed keys of a row of the mask lie in [start, end); `holed` is not 0 when others lie between them. */
function runOf(f: FunctionBuilder, row: Local, S: Local): { start: Local; end: Local; holed: Local } {
  const top = f.local("i32", at(row, S, 4));
  const left = (p: Local, end: Local): Expr => sub(end, p);
  const [p, q, r] = [f.local("i32", row), f.local("i32", top), f.local("i32")];
  const some = (at16: Expr): Expr => op("v128.any_true", load("v128.load", at16));
  advanceWhile(
    f,
    p,
    16,
    () => op("i32.lt_u", left(p, top), 16),
    () => some(p),
  );
  advanceWhile(
    f,
    p,
    4,
    () => op("i32.eq", p, top),
    () => load("i32.load", p),
  );
  advanceWhile(
    f,
    q,
    -16,
    () => op("i32.lt_u", left(p, q), 16),
    () => some(sub(q, 16)),
  );
  advanceWhile(
    f,
    q,
    -4,
    () => op("i32.eq", p, q),
    () => load("i32.load", sub(q, 4)),
  );
  f.set(r, p);
  const none = (x: Expr): Expr => op("i32.eqz", x);
  advanceWhile(
    f,
    r,
    16,
    () => op("i32.lt_u", left(r, q), 16),
    () => none(op("i32x4.all_true", load("v128.load", r))),
  );
  advanceWhile(
    f,
    r,
    4,
    () => op("i32.eq", r, q),
    () => none(load("i32.load", r)),
  );
  const key = (address: Local): Local => f.local("i32", op("i32.shr_u", sub(address, row), 2));
  return { start: key(p), end: key(q), holed: f.local("i32", op("i32.ne", r, q)) };
}

/** p += step until `over` or `found`. */
function advanceWhile(f: FunctionBuilder, p: Local, step: number, over: () => Expr, found: () => Expr): void {
  f.block(() =>
    f.repeat(() => {
      f.leaveIf(over(), 1);
      f.leaveIf(found(), 1);
      f.advance(p, step);
      return i32(1);
    }),
  );
}
