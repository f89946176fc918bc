import { type RopeAngles, applyRotary } from "@neolog/nn";
import { type AttentionOptions, type Tensor, attention, reshape, transpose } from "@neolog/tensor";
import type { PositionCache } from "./kvCache.ts";

/** What a block needs beside the hidden states. */
export interface BlockInputs {
  /** Its place among the blocks, from 0. */
  readonly layer: number;
  /** How many positions a query sees, its own included; null for all. */
  readonly window: number | null;
  /** int32 [B | 1, 1, T, S]: 1 where a query sees a key. */
  readonly mask: Tensor;
  readonly angles: RopeAngles;
  readonly cache: PositionCache | undefined;
}

/** x [B, T, heads · D] → [B, heads, T, D] */
export function splitHeads(x: Tensor, headDim: number): Tensor {
  const [B, T, width] = x.shape as [number, number, number];
  return transpose(reshape(x, [B, T, width / headDim, headDim]), 1, 2);
}

/**
 * Causal attention with rotary positions and grouped queries: q [B, H, T, D]; k, v [B, K, T, D], before the rotation and without what
 * the cache holds → [B, T, H · D]. Ainslie et al. 2023, https://arxiv.org/abs/2305.13245
 */
export function rotaryAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  { layer, window, mask, angles, cache }: BlockInputs,
  options: AttentionOptions = {},
): Tensor {
  const [B, H, T, D] = q.shape as [number, number, number, number];
  const turned = applyRotary(k, angles);
  const { key, value } = cache?.update(layer, turned, v, window) ?? { key: turned, value: v }; // [B, K, S, D]
  const y = attention(applyRotary(q, angles), key, value, mask, options);
  return reshape(transpose(y, 1, 2), [B, T, H * D]);
}
