import { type Shape, ShapeError, formatShape } from "../errors.ts";
import {
  type Layout,
  broadcastsTo,
  contiguousLayout,
  permuteLayout,
  rowsPerHead,
  sameShape,
  sizeOf,
} from "../layout.ts";
import { type GradientAttrs, type KeysAndValues, fused, fusedGradient, provenance, untracked } from "../op.ts";
import type { Tensor } from "../tensor.ts";
import { matmul } from "./matmul.ts";
import { cast, cat, reshape, slice, transpose } from "./movement.ts";
import { add, div, mul, notEqual, square, sub, tanh, where } from "./pointwise.ts";
import { sum } from "./reduce.ts";
import { softmax } from "./softmax.ts";

/** What a forbidden score becomes: finite, so that a row that may attend nowhere stays finite too. */
export const MASKED_SCORE = -3.4028234663852886e38;

export interface AttentionOptions {
  /** Factor of q·k; 1/√D by default. */
  readonly scale?: number;
  /** Scores become softcap·tanh(score / softcap). */
  readonly softcap?: number | null;
  /** Added to the scores before the mask; broadcasts to [B, H, T, S], and gets a gradient. */
  readonly bias?: Tensor | null;
}

/**
 * softmax(q·kᵀ·scale, masked)·v. q [B, H, T, D], k [B, K, S, D], v [B, K, S, E] with H a multiple of K (grouped queries);
 * mask broadcasts to [B, H, T, S], nonzero where a query may attend. → [B, H, T, E]. With a bias it is the composite on every
 * backend: no one-pass kernel, all scores in memory at once, and K1 alone where a cache changes S.
 * Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; Ainslie et al. 2023, https://arxiv.org/abs/2305.13245
 */
export function attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, options: AttentionOptions = {}): Tensor {
  checkShapes("attention", q, k, v, mask);
  const [B, H, T, D] = q.shape as [number, number, number, number];
  const scale = options.scale ?? 1 / Math.sqrt(D);
  const softcap = options.softcap ?? null;
  const allowed = asInt32(mask);
  const bias = options.bias ?? null;
  if (bias && !broadcastsTo(bias.shape, [B, H, T, k.shape[2]!]))
    throw new ShapeError("attention", `bias must broadcast to ${formatShape([B, H, T, k.shape[2]!])}`, bias.shape);
  const composite = (): Tensor => {
    const { p } = weights(q, k, allowed, scale, softcap, bias);
    return reshape(matmul(p, grouped(v, k.shape[1]!)), [B, H, T, -1].with(3, v.shape[3]!));
  };
  if (bias) return composite();
  const shape = [B, H, T, v.shape[3]!];
  const strided = takesStrides("attention", q, v);
  const asIs = (input: number): boolean =>
    (input === 0 && strided && hasWholeRows(q.layout)) ||
    (input === 1 && rowsPerHead(k.layout) !== null) ||
    (input === 2 && rowsPerHead(v.layout) !== null);
  const layout = strided && isPositionsFirst(q.layout) ? positionsFirst(shape) : undefined;
  return fused("attention", [q, k, v, allowed], { scale, softcap }, shape, composite, asIs, layout);
}

/**
 * attention of q [B, H, T, D] to constants, `past` [B, K, P, …], and behind them to k [B, K, T, D] and v [B, K, T, E]; mask
 * broadcasts to [B, H, T, P + T]. The value of attention to both joined; backward computes nothing for the constants.
 */
export function attentionAfter(
  past: KeysAndValues,
  q: Tensor,
  k: Tensor,
  v: Tensor,
  mask: Tensor,
  options: AttentionOptions = {},
): Tensor {
  if (options.bias) return attention(q, cat([past.key, k], 2), cat([past.value, v], 2), mask, options);
  const { scale = 1 / Math.sqrt(q.shape.at(-1)!), softcap = null } = options;
  const [all, y] = untracked(() => {
    const joined = { key: cat([past.key, k], 2), value: cat([past.value, v], 2) };
    return [joined, attention(q, joined.key, joined.value, mask, { scale, softcap })] as const;
  });
  y.source = provenance("attention", [q, k, v, asInt32(mask)], { scale, softcap, past: all });
  return y;
}

/**
 * The gradients of attention for an incoming g [B, H, T, E], those that `wanted` asks for: of q, [B, H, T, D]; of k and v behind
 * `past` constant ones, for each query head, [B, H, S − past, D] and [B, H, S − past, E].
 */
export function attentionGrad(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  mask: Tensor,
  g: Tensor,
  attrs: GradientAttrs["attentionGrad"],
): readonly [gq: Tensor | null, gk: Tensor | null, gv: Tensor | null] {
  checkShapes("attentionGrad", q, k, v, mask);
  const [B, H, T, D] = q.shape as [number, number, number, number];
  const [, K, S, E] = v.shape as [number, number, number, number];
  if (!sameShape(g.shape, [B, H, T, E]))
    throw new ShapeError("attentionGrad", `the gradient must be ${formatShape([B, H, T, E])}`, g.shape);
  const { scale, softcap, wanted, past = 0 } = attrs;
  if (!wanted.includes(true)) return [null, null, null];
  const allowed = asInt32(mask);
  const shapes: Shape[] = [q.shape, [B, H, S - past, D], [B, H, S - past, E]];
  const sizes = shapes.map((shape, i) => (wanted[i] ? sizeOf(shape) : 0));
  const total = sizes.reduce((n, size) => n + size, 0);
  const strided = takesStrides("attentionGrad", q, v);
  const first = strided && isPositionsFirst(q.layout);
  const asIs = (input: number): boolean =>
    strided && ((input === 0 && hasWholeRows(q.layout)) || (input === 4 && hasWholeRows(g.layout)));
  const inputs = [q, k, v, allowed, g];
  const composite = (): Tensor => {
    const { p, capped } = weights(q, k, allowed, scale, softcap);
    const [qg, kg, vg, gg] = [grouped(q, K), grouped(k, K), grouped(v, K), grouped(g, K)];
    const gp = mul(p, matmul(gg, transpose(vg)));
    const gMasked = sub(gp, mul(p, sum(gp, -1, true)));
    const gCapped = grouped(where(allowed, reshape(gMasked, [B, H, T, S]), 0), K);
    const gRaw = softcap === null ? gCapped : mul(gCapped, sub(1, square(div(capped, softcap))));
    const gScores = mul(gRaw, scale);
    const later = (x: Tensor): Tensor => slice(x, -1, past);
    const inOrder = (x: Tensor): Tensor => (first ? transpose(x, 1, 2) : x);
    const parts = [
      wanted[0] ? inOrder(reshape(matmul(gScores, kg), q.shape)) : null,
      wanted[1] ? matmul(transpose(later(gScores)), qg) : null,
      wanted[2] ? matmul(transpose(later(p)), gg) : null,
    ];
    return cat(
      parts.flatMap((part) => (part ? [reshape(part, [part.size])] : [])),
      0,
    );
  };
  const all = fusedGradient("attentionGrad", inputs, { ...attrs, positionsFirst: first }, [total], composite, asIs);
  let start = 0;
  const [gq, gk, gv] = shapes.map((shape, i) => {
    if (!wanted[i]) return null;
    const end = start + sizes[i]!;
    const part = slice(all, 0, start, end);
    start = end;
    return i === 0 && first ? transpose(reshape(part, [B, T, H, D]), 1, 2) : reshape(part, shape);
  });
  return [gq!, gk!, gv!];
}

/** True where the kernel takes rows of q, g and its result wherever strides put them, and has some. */
const takesStrides = (op: "attention" | "attentionGrad", { backend, shape }: Tensor, v: Tensor): boolean =>
  backend.rowsAnywhere?.includes(op) === true && shape[3]! * sizeOf(v.shape) > 0;

const hasWholeRows = ({ shape, strides }: Layout): boolean => shape[3] === 1 || strides[3] === 1;

/** x [B, H, T, n] whose heads lie closer than its positions: projections give them so. */
const isPositionsFirst = ({ shape: [, H, T], strides }: Layout): boolean =>
  H! > 1 && T! > 1 && Math.abs(strides[1]!) < Math.abs(strides[2]!);

/** [B, H, T, n] that lies as [B, T, H, n] */
const positionsFirst = (shape: Shape): Layout =>
  permuteLayout(contiguousLayout([shape[0]!, shape[2]!, shape[1]!, shape[3]!]), [0, 2, 1, 3]);

/** x [B, H, n, m] → [B, K, H/K, n, m] */
const grouped = (x: Tensor, K: number): Tensor => {
  const [B, H, n, m] = x.shape as [number, number, number, number];
  return reshape(x, [B, K, H / K, n, m]);
};

/** The softmax of the masked scores, and the scores before the mask, [B, K, H/K, T, S]. */
function weights(
  q: Tensor,
  k: Tensor,
  allowed: Tensor,
  scale: number,
  softcap: number | null,
  bias: Tensor | null = null,
): { p: Tensor; capped: Tensor } {
  const [B, H, T] = q.shape as [number, number, number];
  const [, K, S] = k.shape as [number, number, number];
  const raw = mul(matmul(grouped(q, K), transpose(grouped(k, K))), scale);
  const capped = softcap === null ? raw : mul(tanh(div(raw, softcap)), softcap);
  const scores = reshape(capped, [B, H, T, S]);
  const masked = where(allowed, bias ? add(scores, bias) : scores, MASKED_SCORE);
  return { p: grouped(softmax(masked), K), capped };
}

const asInt32 = (mask: Tensor): Tensor => (mask.dtype === "int32" ? mask : cast(notEqual(mask, 0), "int32"));

function checkShapes(op: string, q: Tensor, k: Tensor, v: Tensor, mask: Tensor): void {
  const [B, H, T, D] = q.shape as [number, number, number, number];
  const [, K, S] = k.shape as [number, number, number];
  const E = v.shape[3]!;
  if (!sameShape(k.shape, [B, K, S, D]) || !sameShape(v.shape, [B, K, S, E]) || H % K !== 0) {
    throw new ShapeError(
      op,
      "q [B, H, T, D], k [B, K, S, D], v [B, K, S, E] with H a multiple of K are needed",
      q.shape,
      k.shape,
      v.shape,
    );
  }
  if (!broadcastsTo(mask.shape, [B, H, T, S])) {
    throw new ShapeError(op, `mask must broadcast to ${formatShape([B, H, T, S])}`, mask.shape);
  }
}
