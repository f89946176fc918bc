import type { View } from "../../../backend.ts";
import { rowsPerHead } from "../../../layout.ts";
import type { OpAttrs } from "../../../op.ts";
import { type Expr, add, at, f32, f32x4, i32, load, mul, op, smaller, sub } from "../asm/expression.ts";
import type { FunctionBuilder, Local } from "../asm/function.ts";
import { buildMasking, buildMixAllowed } from "../attention/masking.ts";
import { REACH, withReaches } from "../attention/masks.ts";
import { FEW, buildOneQuery } from "../attention/oneQuery.ts";
import { ADDRESSES, PANEL, ROW, addressRows, buildPacking, ownPart, stepsOf } from "../attention/panels.ts";
import { type TileRows, buildProducts, tileRowsOf } from "../attention/products.ts";
import { buildCap, buildSoftmax } from "../attention/scores.ts";
import { type Engine, type ModuleDefinition, addressOf } from "../engine.ts";
import { Vectors } from "../vectors.ts";

/**
 * softmax(q·kᵀ·scale, masked)·v without a [T, S] tensor. q [B, H, T, D], k [B, K, S, D], v [B, K, S, E], mask int32 that broadcasts
 * to [B, H, T, S] → out [B, H, T, E]. Rows of q and out may lie anywhere, heads of k and v apart. Eight queries go side by side: those
 * of one position of the heads that share keys, then those of the next.
 * False where there is nothing to add up.
 */
export function attention(
  engine: Engine,
  out: View,
  [q, k, v, mask]: readonly View[],
  { scale, softcap }: OpAttrs["attention"],
): boolean {
  const [B, H, T, D] = q!.layout.shape as [number, number, number, number];
  const [, K, S, E] = v!.layout.shape as [number, number, number, number];
  if (S * D * E === 0) return false;
  const rows = S + 1 + D + 1 + E + 2;
  const queries = (H / K) * T;
  withReaches(engine, mask!, [B, H, T, S], K, ({ address, batchBytes, imageBytes, panels }) =>
    engine.withTemporary(0, PANEL * rows * engine.pool.threads, (temporary) => {
      const addresses = [out, q!, k!, v!].map(addressOf);
      const capped = softcap === null ? [scale, 0] : [scale / softcap, softcap];
      const sizes = [K, queries, H / K, S, rowsPerHead(k!.layout)!, rowsPerHead(v!.layout)!, D, E];
      const args = [
        ...addresses,
        ...stepsOf(out),
        ...stepsOf(q!),
        address,
        batchBytes,
        imageBytes,
        panels,
        ...sizes,
        ...capped,
        temporary,
        ROW * rows,
      ];
      engine.run(ATTENTION[tileRowsOf(engine.tile)], "attention", args, {
        items: B * K * panels,
        work: PANEL * S * (D + E),
      });
    }),
  );
  return true;
}

const attentionModule = (rows: TileRows): ModuleDefinition => ({
  build(m, { madd }) {
    const { pack, unpack } = buildPacking(m);
    const { dots, mix } = buildProducts(m, madd, rows);
    const oneQuery = buildOneQuery(m, madd);
    const mask = buildMasking(m);
    const mixAllowed = buildMixAllowed(m, madd);
    const cap = buildCap(m, madd);
    const softmax = buildSoftmax(m, madd);
    m.kernel(
      "attention",
      {
        out: "i32",
        q: "i32",
        k: "i32",
        v: "i32",
        outBatch: "i32",
        outHead: "i32",
        outRow: "i32",
        qBatch: "i32",
        qHead: "i32",
        qRow: "i32",
        reaches: "i32",
        batchBytes: "i32",
        imageBytes: "i32",
        panels: "i32",
        heads: "i32",
        queries: "i32",
        group: "i32",
        S: "i32",
        /** From the first key, or value, of a head to that of the next. */
        keyRows: "i32",
        valueRows: "i32",
        D: "i32",
        E: "i32",
        scale: "f32",
        softcap: "f32",
        temporary: "i32",
        temporaryBytes: "i32",
      },
      (f, a) => {
        const weights = f.local("i32", ownPart(a.temporary, a.temporaryBytes, a.scratch)); // [S + 1, 8]
        const panel = f.local("i32", at(weights, op("i32.add", a.S, 1), ROW)); // [D, 8]
        const factors = f.local("i32", at(panel, a.D, ROW)); // [8]
        const sums = f.local("i32", add(factors, ROW)); // [E, 8]
        const rows = f.local("i32", at(sums, a.E, ROW)); // of q
        const results = f.local("i32", add(rows, ADDRESSES)); // of out
        const [item, lane, done] = f.locals(3, "i32") as [Local, Local, Local];
        f.for(item, a.from, a.to, 1, () => {
          const head = f.local("i32", op("i32.div_u", item, a.panels)); // b·K + k
          const query = f.local("i32", mul(op("i32.rem_u", item, a.panels), PANEL));
          const live = f.local("i32", sub(a.queries, query));
          f.set(live, smaller(live, i32(PANEL)));
          const reach = f.local("i32", at(a.reaches, op("i32.div_u", head, a.heads), a.batchBytes));
          f.set(reach, at(at(reach, op("i32.rem_u", head, a.heads), a.imageBytes), query, REACH.BYTES / PANEL));
          const first = f.local("i32", load("i32.load", reach, REACH.FIRST));
          const n = f.local("i32", sub(load("i32.load", reach, REACH.LAST), first));
          const values = f.local("i32", at(a.v, mul(at(first, head, a.valueRows), a.E), 4));
          const keys = f.local("i32", at(a.k, mul(at(first, head, a.keyRows), a.D), 4));
          const ofHeads = (x: Expr, batchStep: Expr, headStep: Expr): Expr =>
            at(
              at(x, op("i32.div_u", head, a.heads), batchStep),
              mul(op("i32.rem_u", head, a.heads), a.group),
              headStep,
            );
          const [ownQ, ownOut] = [ofHeads(a.q, a.qBatch, a.qHead), ofHeads(a.out, a.outBatch, a.outHead)];
          addressRows(f, rows, ownQ, query, a.group, live, { headStep: a.qHead, rowStep: a.qRow });
          addressRows(f, results, ownOut, query, a.group, live, { headStep: a.outHead, rowStep: a.outRow });
          f.set(done, i32(0));
          f.if(op("i32.le_s", live, FEW), () => {
            f.set(done, i32(1));
            f.for(lane, 0, live, 1, () => {
              const [q, out] = [rows, results].map((x) => f.local("i32", load("i32.load", at(x, lane, 4))));
              f.call(oneQuery, reach, lane, q!, keys, a.D, values, a.E, n, a.scale, a.softcap, weights, out!);
              f.if(holdsNaN(f, out!, a.E), () => f.set(done, 0));
            });
          });
          f.if(op("i32.eqz", done), () => {
            f.call(pack, rows, a.D, panel, live, a.scale);
            f.call(dots, keys, a.D, panel, weights, n);
            f.if(op("f32.ne", a.softcap, 0), () => f.call(cap, weights, mul(n, PANEL), a.softcap, weights));
            f.call(mask, reach, weights, f32(-Infinity));
            f.call(softmax, weights, n, factors);
            f.call(mix, values, a.E, weights, sums, n);
            f.if(holdsNaN(f, sums, mul(a.E, PANEL)), () => f.call(mixAllowed, reach, values, a.E, weights, sums));
            f.call(unpack, results, a.E, sums, live, factors);
          });
        });
      },
    );
  },
});
const ATTENTION = { 4: attentionModule(4), 8: attentionModule(8) } as const;

/** Whether a NaN is among the n numbers at x. */
function holdsNaN(f: FunctionBuilder, x: Expr, n: Expr): Expr {
  const [p, end] = [f.local("i32", x), f.local("i32", at(x, n, i32(4)))];
  const found = f.local("v128", f32x4(0));
  new Vectors(f, 1, false).walk(p, end, [], (u) => {
    const y = u.load(p)[0]!;
    f.set(found, op("v128.or", found, op("f32x4.ne", y, y)));
  });
  return op("v128.any_true", found);
}
