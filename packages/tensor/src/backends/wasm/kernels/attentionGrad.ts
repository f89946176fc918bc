import type { View } from "../../../backend.ts";
import { sizeOf } from "../../../layout.ts";
import type { OpAttrs } from "../../../op.ts";
import { type Expr, add, at, f32, f32x4, i32, larger, load, mul, op, select, smaller, sub } from "../asm/expression.ts";
import type { Local } from "../asm/function.ts";
import { buildMasking } from "../attention/masking.ts";
import { REACH, withReaches } from "../attention/masks.ts";
import {
  ADDRESSES,
  PANEL,
  ROW,
  addressRows,
  buildGather,
  buildPacking,
  ownPart,
  stepsOf,
} from "../attention/panels.ts";
import { type TileRows, buildProducts, tileRowsOf } from "../attention/products.ts";
import { buildCap, buildCapSlopes, buildNormalize, buildSlopes, buildSoftmax } from "../attention/scores.ts";
import { type Engine, type ModuleDefinition, addressOf } from "../engine.ts";

/** Panels whose queries add to the gradients of keys and values in one pass. */
const PANELS = 4;

/**
 * The gradients of q [B, H, T, D] and of k and v for each query head, [B, H, S − past, D] and [B, H, S − past, E], those `wanted`, one
 * after the other in out, that of q as [B, T, H, D] where `positionsFirst`; g [B, H, T, E] is that of the result. Rows of q and g may
 * lie anywhere. The weights are computed again, for 32 queries at a time. A head is one
 * thread's, so that sums over its queries have one order. False where there is nothing to add up.
 */
export function attentionGrad(
  engine: Engine,
  out: View,
  [q, k, v, mask, g]: readonly View[],
  { scale, softcap, wanted, past = 0, positionsFirst = false }: OpAttrs["attentionGrad"],
): boolean {
  const [B, H, T, D] = q!.layout.shape as [number, number, number, number];
  const [, K, S, E] = v!.layout.shape as [number, number, number, number];
  if (S * D * E === 0) return false;
  const rows = (2 * PANELS + 1) * (S + 1) + Math.max(D, E) + D + 3 + PANELS * (D + E);
  let end = addressOf(out);
  const targets = [q!.layout.shape, [B, H, S - past, D], [B, H, S - past, E]].map((shape, i) => {
    if (!wanted[i]) return 0;
    const address = end;
    end += 4 * sizeOf(shape);
    return address | 0;
  });
  withReaches(engine, mask!, [B, H, T, S], H, ({ address, batchBytes, imageBytes, panels }) =>
    engine.withTemporary(0, PANEL * rows * engine.pool.threads, (temporary) => {
      const addresses = [q!, k!, v!, g!].map(addressOf);
      const gqSteps = positionsFirst ? [T * H * D, D, H * D] : [H * T * D, T * D, D];
      const steps = [...gqSteps.map((step) => 4 * step), ...stepsOf(q!), ...stepsOf(g!)];
      const sizes = [H, H / K, T, S, past, D, E];
      const factors = [scale, softcap === null ? scale : scale / softcap, softcap ?? 0];
      const args = [...targets, ...addresses, ...steps, address, batchBytes, imageBytes, panels, ...sizes, ...factors];
      engine.run(ATTENTION_GRAD[tileRowsOf(engine.tile)], "attentionGrad", [...args, temporary, ROW * rows], {
        items: B * H,
        work: T * S * (2 * D + E),
      });
    }),
  );
  return true;
}

const gradientModule = (rows: TileRows): ModuleDefinition => ({
  build(m, { madd }) {
    const { pack, unpack } = buildPacking(m);
    const gather = buildGather(m);
    const { dots, mix, outer } = buildProducts(m, madd, rows);
    const mask = buildMasking(m);
    const cap = buildCap(m, madd);
    const capSlopes = buildCapSlopes(m, madd);
    const softmax = buildSoftmax(m, madd);
    const normalize = buildNormalize(m, madd);
    const slopesOf = buildSlopes(m, madd);
    m.kernel(
      "attentionGrad",
      {
        gq: "i32",
        gk: "i32",
        gv: "i32",
        q: "i32",
        k: "i32",
        v: "i32",
        g: "i32",
        gqBatch: "i32",
        gqHead: "i32",
        gqRow: "i32",
        qBatch: "i32",
        qHead: "i32",
        qRow: "i32",
        gBatch: "i32",
        gHead: "i32",
        gRow: "i32",
        reaches: "i32",
        batchBytes: "i32",
        imageBytes: "i32",
        panels: "i32",
        heads: "i32",
        group: "i32",
        T: "i32",
        S: "i32",
        past: "i32",
        D: "i32",
        E: "i32",
        scale: "f32",
        scoreScale: "f32",
        softcap: "f32",
        temporary: "i32",
        temporaryBytes: "i32",
      },
      (f, a) => {
        const panelBytes = f.local("i32", mul(add(a.S, 1), ROW));
        const weights = f.local("i32", ownPart(a.temporary, a.temporaryBytes, a.scratch)); // [PANELS, S + 1, 8]
        const slopes = f.local("i32", at(weights, panelBytes, i32(PANELS))); // [PANELS, S + 1, 8]
        const tanhs = f.local("i32", at(slopes, panelBytes, i32(PANELS))); // [S + 1, 8]
        const sums = f.local("i32", add(tanhs, panelBytes)); // [D, 8]
        const ones = f.local("i32", at(sums, a.D, ROW)); // [8]
        const factors = f.local("i32", add(ones, ROW)); // [8]
        const addresses = f.local("i32", add(factors, ROW)); // [8]
        const panel = f.local("i32", add(addresses, ADDRESSES)); // [max(D, E), 8]
        const widest = select(op("i32.gt_s", a.D, a.E), a.D, a.E);
        const ownQ = f.local("i32", at(panel, widest, ROW)); // [32, D]
        const ownG = f.local("i32", at(ownQ, a.D, i32(4 * PANELS * PANEL))); // [32, E]
        const scores = f.local("i32", op("i32.or", a.gq, a.gk));
        for (const half of [0, 16]) f.store("v128.store", ones, f32x4(1), half);

        /** Row `index` of a tensor with rows of `width`. */
        const rowOf = (x: Expr, index: Expr, width: Expr): Expr => at(x, mul(index, width), 4);
        const item = f.local("i32");
        f.for(item, a.from, a.to, 1, () => {
          const keyHead = f.local("i32", op("i32.div_u", item, a.group));
          const batch = f.local("i32", op("i32.div_u", item, a.heads));
          const head = f.local("i32", op("i32.rem_u", item, a.heads));
          const reaches = f.local("i32", at(at(a.reaches, batch, a.batchBytes), head, a.imageBytes));
          const q = f.local("i32", at(at(a.q, batch, a.qBatch), head, a.qHead));
          const g = f.local("i32", at(at(a.g, batch, a.gBatch), head, a.gHead));
          const gq = f.local("i32", at(at(a.gq, batch, a.gqBatch), head, a.gqHead));
          const later = f.local("i32", sub(a.S, a.past));
          const [ownKeys, keys] = [f.local("i32", mul(item, later)), f.local("i32", mul(keyHead, a.S))];
          for (const [target, width] of [
            [a.gk, a.D],
            [a.gv, a.E],
          ] as const) {
            f.if(target, () => f.zero(rowOf(target, ownKeys, width), mul(mul(later, width), 4)));
          }

          const block = f.local("i32");
          f.for(block, 0, a.panels, PANELS, () => {
            const count = f.local("i32", sub(a.panels, block));
            f.set(count, smaller(count, i32(PANELS)));
            const firstReach = f.local("i32", at(reaches, block, i32(REACH.BYTES)));
            const [i, first, last] = [f.local("i32"), f.local("i32", a.S), f.local("i32", i32(0))];
            f.for(i, 0, count, 1, () => {
              const reach = at(firstReach, i, i32(REACH.BYTES));
              f.set(first, smaller(first, f.local("i32", load("i32.load", reach, REACH.FIRST))));
              const end = f.local("i32", load("i32.load", reach, REACH.LAST));
              f.set(last, select(op("i32.gt_s", end, last), end, last));
            });
            const n = f.local("i32", sub(last, first));
            const query = f.local("i32", mul(block, PANEL));
            const queries = f.local("i32", sub(a.T, query));
            f.set(queries, smaller(queries, i32(PANELS * PANEL)));
            f.call(gather, at(q, query, a.qRow), a.qRow, a.D, ownQ, queries);
            f.call(gather, at(g, query, a.gRow), a.gRow, a.E, ownG, queries);

            f.for(i, 0, count, 1, () => {
              const reach = f.local("i32", at(firstReach, i, i32(REACH.BYTES)));
              const start = f.local("i32", load("i32.load", reach, REACH.FIRST));
              const length = f.local("i32", sub(load("i32.load", reach, REACH.LAST), start));
              const skipped = f.local("i32", mul(sub(start, first), ROW));
              const [w, s] = [weights, slopes].map((x) => f.local("i32", add(at(x, i, panelBytes), skipped)));
              const live = f.local("i32", sub(sub(a.T, query), mul(i, PANEL)));
              f.set(live, smaller(live, i32(PANEL)));
              const ownRow = f.local("i32", mul(i, PANEL));
              /** The addresses of this panel's rows, `step` apart from x on. */
              const rowsFrom = (x: Expr, step: Expr): Expr => {
                addressRows(f, addresses, x, i32(0), i32(1), live, { headStep: i32(0), rowStep: step });
                return addresses;
              };
              const key = f.local("i32", add(keys, start));
              /** 0 at the keys of the block that are out of this panel's reach. */
              const clear = (x: Expr): void => {
                f.zero(sub(x, skipped), skipped);
                f.zero(at(x, length, i32(ROW)), mul(sub(sub(last, start), length), ROW));
              };
              f.call(pack, rowsFrom(rowOf(ownQ, ownRow, a.D), mul(a.D, 4)), a.D, panel, live, a.scoreScale);
              f.call(dots, rowOf(a.k, key, a.D), a.D, panel, w!, length);
              f.if(op("f32.ne", a.softcap, 0), () => f.call(cap, w!, mul(length, PANEL), a.softcap, tanhs));
              f.call(mask, reach, w!, f32(-Infinity));
              f.call(softmax, w!, length, factors);
              f.call(normalize, w!, length, factors);
              clear(w!);
              f.if(scores, () => {
                f.call(pack, rowsFrom(rowOf(ownG, ownRow, a.E), mul(a.E, 4)), a.E, panel, live, a.scale);
                f.call(dots, rowOf(a.v, key, a.E), a.E, panel, s!, length);
                f.call(slopesOf, w!, s!, length);
                f.if(op("f32.ne", a.softcap, 0), () => f.call(capSlopes, s!, length, tanhs));
                f.call(mask, reach, s!, f32(0));
                clear(s!);
                f.if(a.gq, () => {
                  f.call(mix, rowOf(a.k, key, a.D), a.D, s!, sums, length);
                  f.call(unpack, rowsFrom(at(gq, add(query, ownRow), a.gqRow), a.gqRow), a.D, sums, live, ones);
                });
              });
            });

            const fixed = f.local("i32", larger(sub(a.past, first), i32(0)));
            const key = f.local("i32", add(ownKeys, sub(add(first, fixed), a.past)));
            const rest = f.local("i32", sub(n, fixed));
            f.set(rest, larger(rest, i32(0)));
            const panelsOf = (x: Local): Expr => at(x, fixed, i32(ROW));
            f.if(a.gv, () =>
              f.call(outer, panelsOf(weights), panelBytes, ownG, a.E, rowOf(a.gv, key, a.E), rest, queries),
            );
            f.if(a.gk, () =>
              f.call(outer, panelsOf(slopes), panelBytes, ownQ, a.D, rowOf(a.gk, key, a.D), rest, queries),
            );
          });
        });
      },
    );
  },
});
const ATTENTION_GRAD = { 4: gradientModule(4), 8: gradientModule(8) } as const;
