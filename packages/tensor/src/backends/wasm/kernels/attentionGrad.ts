import type { View } from "../../../backend.ts";
import { sizeOf } from "../../../layout.ts";
import type { OpAttrs } from "../../../op.ts";
import { type Expr, add, at, f32, f32x4, i32, larger, load, mul, op, select, smaller, sub } from "../asm/expression.ts";
import type { Local } from "../asm/function.ts";
import { buildMasking } from "../attention/masking.ts";
import { REACH, withReaches } from "../attention/masks.ts";
import { PANEL, ROW, buildPacking, ownPart } from "../attention/panels.ts";
import { type TileRows, buildProducts, tileRowsOf } from "../attention/products.ts";
import { buildCap, buildCapSlopes, buildNormalize, buildSlopes, buildSoftmax } from "../attention/scores.ts";
import { type Engine, type ModuleDefinition, addressOf } from "../engine.ts";

/** Panels whose queries add to the gradients of keys and values in one pass. */
const PANELS = 4;

/**
 * The gradients of q [B, H, T, D] and of k and v for each query head, [B, H, S − past, D] and [B, H, S − past, E], those `wanted`, one
 * after the other in out; g [B, H, T, E] is that of the result. The weights are computed again, for 32 queries at a time. A head is one
 * thread's, so that sums over its queries have one order. False where there is nothing to add up.
 */
export function attentionGrad(
  engine: Engine,
  out: View,
  [q, k, v, mask, g]: readonly View[],
  { scale, softcap, wanted, past = 0 }: OpAttrs["attentionGrad"],
): boolean {
  const [B, H, T, D] = q!.layout.shape as [number, number, number, number];
  const [, K, S, E] = v!.layout.shape as [number, number, number, number];
  if (S * D * E === 0) return false;
  const rows = (2 * PANELS + 1) * (S + 1) + Math.max(D, E) + D + 2;
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
      const sizes = [H, H / K, T, S, past, D, E];
      const factors = [scale, softcap === null ? scale : scale / softcap, softcap ?? 0];
      const args = [...targets, ...addresses, address, batchBytes, imageBytes, panels, ...sizes, ...factors];
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
        const panel = f.local("i32", add(factors, ROW)); // [max(D, E), 8]
        const scores = f.local("i32", op("i32.or", a.gq, a.gk));
        for (const half of [0, 16]) f.store("v128.store", ones, f32x4(1), half);

        /** Row `index` of a tensor with rows of `width`. */
        const rowOf = (x: Expr, index: Expr, width: Expr): Expr => at(x, mul(index, width), 4);
        const item = f.local("i32");
        f.for(item, a.from, a.to, 1, () => {
          const keyHead = f.local("i32", op("i32.div_u", item, a.group));
          const reaches = f.local("i32", at(a.reaches, op("i32.div_u", item, a.heads), a.batchBytes));
          f.set(reaches, at(reaches, op("i32.rem_u", item, a.heads), a.imageBytes));
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
            const row = f.local("i32", at(query, item, a.T));

            f.for(i, 0, count, 1, () => {
              const reach = f.local("i32", at(firstReach, i, i32(REACH.BYTES)));
              const start = f.local("i32", load("i32.load", reach, REACH.FIRST));
              const length = f.local("i32", sub(load("i32.load", reach, REACH.LAST), start));
              const skipped = f.local("i32", mul(sub(start, first), ROW));
              const [w, s] = [weights, slopes].map((x) => f.local("i32", add(at(x, i, panelBytes), skipped)));
              const live = f.local("i32", sub(sub(a.T, query), mul(i, PANEL)));
              f.set(live, smaller(live, i32(PANEL)));
              const ownRow = f.local("i32", at(row, i, i32(PANEL)));
              const key = f.local("i32", add(keys, start));
              /** 0 at the keys of the block that are out of this panel's reach. */
              const clear = (x: Expr): void => {
                f.zero(sub(x, skipped), skipped);
                f.zero(at(x, length, i32(ROW)), mul(sub(sub(last, start), length), ROW));
              };
              f.call(pack, rowOf(a.q, ownRow, a.D), a.D, panel, live, a.scoreScale);
              f.call(dots, rowOf(a.k, key, a.D), a.D, panel, w!, length);
              f.if(op("f32.ne", a.softcap, 0), () => f.call(cap, w!, mul(length, PANEL), a.softcap, tanhs));
              f.call(mask, reach, w!, f32(-Infinity));
              f.call(softmax, w!, length, factors);
              f.call(normalize, w!, length, factors);
              clear(w!);
              f.if(scores, () => {
                f.call(pack, rowOf(a.g, ownRow, a.E), a.E, panel, live, a.scale);
                f.call(dots, rowOf(a.v, key, a.E), a.E, panel, s!, length);
                f.call(slopesOf, w!, s!, length);
                f.if(op("f32.ne", a.softcap, 0), () => f.call(capSlopes, s!, length, tanhs));
                f.call(mask, reach, s!, f32(0));
                clear(s!);
                f.if(a.gq, () => {
                  f.call(mix, rowOf(a.k, key, a.D), a.D, s!, sums, length);
                  f.call(unpack, rowOf(a.gq, ownRow, a.D), a.D, sums, live, ones);
                });
              });
            });

            const live = f.local("i32", sub(a.T, query));
            f.set(live, smaller(live, i32(PANELS * PANEL)));
            const fixed = f.local("i32", larger(sub(a.past, first), i32(0)));
            const key = f.local("i32", add(ownKeys, sub(add(first, fixed), a.past)));
            const rest = f.local("i32", sub(n, fixed));
            f.set(rest, larger(rest, i32(0)));
            const panelsOf = (x: Local): Expr => at(x, fixed, i32(ROW));
            f.if(a.gv, () =>
              f.call(
                outer,
                panelsOf(weights),
                panelBytes,
                rowOf(a.g, row, a.E),
                a.E,
                rowOf(a.gv, key, a.E),
                rest,
                live,
              ),
            );
            f.if(a.gk, () =>
              f.call(outer, panelsOf(slopes), panelBytes, rowOf(a.q, row, a.D), a.D, rowOf(a.gk, key, a.D), rest, live),
            );
          });
        });
      },
    );
  },
});
const ATTENTION_GRAD = { 4: gradientModule(4), 8: gradientModule(8) } as const;
