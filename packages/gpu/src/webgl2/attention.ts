import { type Backend, type Buffer, type Layout, type OpAttrs, type View, expandLayout } from "@neolog/tensor";
import type { Kernel, Launch, RowsExecutor } from "../kernel.ts";
import {
  productGradients,
  productOfRows,
  rowByRow,
  statistics,
  weightedBack,
  weighted,
  weights,
} from "./attentionKernels.ts";

/** Scores that exist at a time, of all heads together; at least those of four queries. */
const LARGEST_CHUNK = 2 ** 20;

/** A matrix in the form of attentionKernels.ts: one buffer for each of four rows. */
type Fours = readonly Buffer[];
type Args = Launch["args"];
interface Part {
  readonly x: Fours;
  readonly M: number;
  readonly W: number;
  readonly skip?: number;
}

const quads = (n: number): number => Math.ceil(n / 4);

/** [B, H, rows, width] of any strides: where its texels are, and whether quads of its rows are texels. */
function strided({ buffer, layout: { offset, strides, shape } }: View): readonly [args: Args, flag: "w" | "o"] {
  const [b, h, row, column] = strides as [number, number, number, number];
  const whole = column === 1 && [offset, b, h, row, shape[3]!].every((x) => x % 4 === 0);
  return [[buffer, offset, b, h, row, column], whole ? "w" : "o"];
}

/** Rows from … to of [B, H, rows, width]. */
function rowsOf({ buffer, layout }: View, from: number, to: number): View {
  const { shape, strides, offset } = layout;
  return { buffer, layout: { shape: shape.with(2, to - from), strides, offset: offset + from * strides[2]! } };
}

/**
 * Attention on WebGL2, some queries of all heads at a time: no [T, S] is whole where that is large. A fragment cannot keep a row to
 * itself as a lane of wgsl/attentionAlone.ts does, without computing all its scores for every texel of it.
 */
export function fusedAttention(
  executor: RowsExecutor,
): Required<Pick<NonNullable<Backend["fused"]>, "attention" | "attentionGrad">> {
  return { attention, attentionGrad };

  /** Four buffers, or fewer, of a length, that the kernel fills. */
  function made(kernel: Kernel, args: Args, length: number, count = 4): Fours {
    const outs = Array.from({ length: count }, () => executor.allocate("float32", length));
    executor.runRows(kernel, args, outs);
    return outs;
  }
  function free(...all: readonly Fours[]): void {
    for (const buffer of all.flat()) executor.free(buffer);
  }

  /** Some queries, and what the passes over their scores need. */
  function chunkOf(all: Inputs, from: number, to: number, { scale, softcap }: OpAttrs["attention"]) {
    const { k, v, G, H, heads, S } = all;
    const [q, g, mask] = [rowsOf(all.q, from, to), all.g && rowsOf(all.g, from, to), rowsOf(all.mask, from, to)];
    const T = to - from;
    const [groups, Sp] = [quads(T), 4 * quads(S)];
    const length = heads * groups * Sp;
    const sizes = [H, G, groups, T, S, Sp];
    const numbers = [scale, softcap ?? 0];
    const product = (what: "scores" | "slopes", x: View, y: View): Fours => {
      const [[xs, xFlag], [ys, yFlag], [masks, maskFlag]] = [strided(x), strided(y), strided(mask)];
      const isScores = what === "scores";
      const kind = isScores && softcap !== null ? "capped" : what;
      return made(
        productOfRows(kind, xFlag + yFlag + (isScores ? maskFlag : "")),
        [...xs, ...ys, ...(isScores ? masks : []), ...sizes, x.layout.shape[3]!, ...numbers],
        length,
      );
    };
    const scores = product("scores", q, k);
    const slopes = g && product("slopes", g, v);
    const stats = made(
      slopes ? statistics("slopes") : statistics(),
      [...scores, ...(slopes ?? []), Sp],
      heads * groups * 4,
      slopes ? 3 : 2,
    );
    return {
      q,
      g,
      groups,
      weights: () => made(weights, [...scores, stats[0]!, stats[1]!, groups, T, Sp], length),
      productGradients: () =>
        made(
          softcap === null ? productGradients() : productGradients("capped"),
          [...scores, ...slopes!, ...stats, groups, T, Sp, ...numbers],
          length,
        ),
      /** w·y over the keys */
      weighted(w: Fours, y: View): Fours {
        const [[ys, flag], width] = [strided(y), y.layout.shape[3]!];
        const Wp = 4 * quads(width);
        return made(weighted(flag), [...w, ...ys, ...sizes, width, Wp], heads * groups * Wp);
      },
      /** wᵀ·y over these queries for keys from `start` on; `old`, what it is added to, is freed. */
      weightedBack(w: Fours, y: View, start: number, old: Fours | null): Fours {
        const [[ys, flag], width] = [strided(y), y.layout.shape[3]!];
        const Wp = 4 * quads(width);
        const more = old ? [flag, "more"] : [flag];
        const args = [...w, ...ys, ...sizes, width, Wp, start, ...(old ?? [])];
        const sum = made(weightedBack(...more), args, heads * quads(S - start) * Wp);
        if (old) free(old);
        return sum;
      },
      end: () => free(scores, slopes ?? [], stats),
    };
  }

  function* chunksOf(all: Inputs, attrs: OpAttrs["attention"]) {
    const rows = Math.max(1, Math.floor(LARGEST_CHUNK / (all.heads * 16 * quads(all.S)))) * 4;
    for (let from = 0; from < all.T; from += rows) {
      const to = Math.min(from + rows, all.T);
      yield { from, to, ...chunkOf(all, from, to, attrs) };
    }
  }

  /** Matrices of M rows and W columns behind rows that are skipped, one after another, into a dense view. */
  function write(out: View, parts: readonly Part[], heads: number): void {
    let start = 0;
    const args = parts.flatMap(({ x, M, W, skip = 0 }) => {
      const at = start;
      start += heads * M * W;
      return [...x, at, skip, M, W, 4 * quads(W)];
    });
    const whole = parts.every(({ W }) => W % 4 === 0) ? "w" : "o";
    executor.run({ kernel: rowByRow(String(parts.length), whole), args, out });
    for (const { x } of parts) free(x);
  }

  function attention(out: View, [q, k, v, mask]: readonly View[], attrs: OpAttrs["attention"]): void {
    const all = inputsOf(q!, k!, v!, mask!, null);
    const [{ heads, T, S }, E] = [all, v!.layout.shape[3]!];
    if (heads * T * S * E === 0) return; // a buffer that nothing was written to is zeros
    for (const chunk of chunksOf(all, attrs)) {
      const w = chunk.weights();
      const x = chunk.weighted(w, v!);
      chunk.end();
      free(w);
      write(
        { buffer: out.buffer, layout: between(out.layout, [heads, T, E], chunk) },
        [{ x, M: chunk.to - chunk.from, W: E }],
        heads,
      );
    }
  }

  function attentionGrad(
    out: View,
    [q, k, v, mask, g]: readonly View[],
    { wanted, past = 0, ...attrs }: OpAttrs["attentionGrad"],
  ): void {
    const all = inputsOf(q!, k!, v!, mask!, g!);
    const { heads, T, S } = all;
    const [D, E] = [q!.layout.shape[3]!, v!.layout.shape[3]!];
    const M = S - past;
    const [byQuery, byKey, byValue] = wanted.map((want, i) => want && (i === 0 || M > 0)) as [
      boolean,
      boolean,
      boolean,
    ];
    if (heads * T * S === 0 || !(byQuery || byKey || byValue)) return;
    const skip = past % 4;
    let [gk, gv]: [Fours | null, Fours | null] = [null, null];
    for (const chunk of chunksOf(all, attrs)) {
      const w = byValue ? chunk.weights() : [];
      const gp = byQuery || byKey ? chunk.productGradients() : [];
      chunk.end();
      const gq = byQuery ? [{ x: chunk.weighted(gp, k!), M: chunk.to - chunk.from, W: D }] : [];
      if (byKey) gk = chunk.weightedBack(gp, chunk.q, past - skip, gk);
      if (byValue) gv = chunk.weightedBack(w, chunk.g!, past - skip, gv);
      free(w, gp);
      const others = [...(gk ? [{ x: gk, M, W: D, skip }] : []), ...(gv ? [{ x: gv, M, W: E, skip }] : [])];
      if (chunk.from === 0 && chunk.to === T) return write(out, [...gq, ...others], heads);
      const { buffer, layout } = out;
      if (byQuery) write({ buffer, layout: between(layout, [heads, T, D], chunk) }, gq, heads);
      if (chunk.to < T || others.length === 0) continue;
      const start = byQuery ? heads * T * D : 0;
      const rest = { shape: [out.layout.shape[0]! - start], strides: [1], offset: layout.offset + start };
      write({ buffer, layout: rest }, others, heads);
    }
  }
}

type Inputs = ReturnType<typeof inputsOf>;

function inputsOf(q: View, k: View, v: View, mask: View, g: View | null) {
  const [B, H, T] = q.layout.shape as [number, number, number];
  const [, K, S] = k.layout.shape as [number, number, number];
  const allowed = { buffer: mask.buffer, layout: expandLayout(mask.layout, [B, H, T, S]) };
  return { q, k, v, mask: allowed, g, H, G: H / K, heads: B * H, T, S };
}

/** Rows from … to of a dense [heads, rows, width]. */
const between = (
  { offset }: Layout,
  [heads, rows, width]: readonly [number, number, number],
  { from, to }: { readonly from: number; readonly to: number },
): Layout => ({
  shape: [heads, to - from, width],
  strides: [rows * width, width, 1],
  offset: offset + from * width,
});
