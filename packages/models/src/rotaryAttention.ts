import { type RopeAngles, applyRotary } from "@neolog/nn";
import { type AttentionOptions, type Tensor, reshape, transpose } from "@neolog/tensor";
import { type AttentionInputs, cachedAttention } from "./cachedAttention.ts";

/** What a block needs beside the hidden states. */
export interface BlockInputs extends AttentionInputs {
  readonly angles: RopeAngles;
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
  block: BlockInputs,
  options: AttentionOptions = {},
): Tensor {
  const [B, H, T, D] = q.shape as [number, number, number, number];
  const y = cachedAttention(applyRotary(q, block.angles), applyRotary(k, block.angles), v, block, options);
  return reshape(transpose(y, 1, 2), [B, T, H * D]);
}
