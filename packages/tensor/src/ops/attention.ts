import { ShapeError, formatShape } from "../errors.ts";
import { broadcastsTo, sameShape } from "../layout.ts";
import { fused } from "../op.ts";
import type { Tensor } from "../tensor.ts";
import { matmul } from "./matmul.ts";
import { reshape, transpose } from "./movement.ts";
import { div, mul, tanh, where } from "./pointwise.ts";
import { softmax } from "./softmax.ts";

/** What a forbidden score becomes: finite, so that a row that may attend nowhere stays finite too. */
export const MASKED_SCORE = -3.4028234663852886e38;

export interface AttentionOptions {
  /** Factor of q·k; 1/√D by default. */
  readonly scale?: number;
  /** Scores become softcap·tanh(score / softcap). */
  readonly softcap?: number | null;
}

/**
 * softmax(q·kᵀ·scale, masked)·v. q [B, H, T, D], k [B, K, S, D], v [B, K, S, E] with H a multiple of K (grouped queries);
 * mask broadcasts to [B, H, T, S], nonzero where a query may attend. → [B, H, T, E].
 * Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; Ainslie et al. 2023, https://arxiv.org/abs/2305.13245
 */
export function attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, options: AttentionOptions = {}): Tensor {
  const [B, H, T, D] = q.shape as [number, number, number, number];
  const [, K, S] = k.shape as [number, number, number, number];
  const E = v.shape[3]!;
  if (!sameShape(k.shape, [B, K, S, D]) || !sameShape(v.shape, [B, K, S, E]) || H % K !== 0) {
    throw new ShapeError(
      "attention",
      "q [B, H, T, D], k [B, K, S, D], v [B, K, S, E] with H a multiple of K are needed",
      q.shape,
      k.shape,
      v.shape,
    );
  }
  if (!broadcastsTo(mask.shape, [B, H, T, S])) {
    throw new ShapeError("attention", `mask must broadcast to ${formatShape([B, H, T, S])}`, mask.shape);
  }
  const scale = options.scale ?? 1 / Math.sqrt(D);
  const softcap = options.softcap ?? null;
  return fused("attention", [q, k, v, mask], { scale, softcap }, [B, H, T, E], () => {
    const grouped = (x: Tensor): Tensor => reshape(x, [B, K, -1, ...x.shape.slice(2)].with(2, x.shape[1]! / K));
    let scores = mul(matmul(grouped(q), transpose(grouped(k))), scale); // [B, K, H/K, T, S]
    if (softcap !== null) scores = mul(tanh(div(scores, softcap)), softcap);
    const masked = where(mask, reshape(scores, [B, H, T, S]), MASKED_SCORE);
    return reshape(matmul(grouped(softmax(masked)), grouped(v)), [B, H, T, E]);
  });
}
