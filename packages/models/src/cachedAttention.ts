import { type AttentionOptions, type Tensor, attention } from "@neolog/tensor";
import type { PositionCache } from "./kvCache.ts";
import { RaggedPositions } from "./raggedPositions.ts";

/** Where a decoder finds keys and values of earlier positions: one text to each row, or several in one. */
export type DecoderCache = PositionCache | RaggedPositions;

/** A layer's place, and what its queries see. */
export interface AttentionInputs {
  /** Its place among the blocks, from 0. */
  readonly layer: number;
  /** How many positions a query sees, its own included; null for all. */
  readonly window: number | null;
  /** int32 [B | 1, 1, T, S]: 1 where a query sees a key. */
  readonly mask: Tensor;
  readonly cache: DecoderCache | undefined;
}

/** q [B, H, T, D] to k, v [B, K, T, D] and to what the cache holds before them → [B, H, T, D] */
export function cachedAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  { layer, window, mask, cache }: AttentionInputs,
  options: AttentionOptions = {},
): Tensor {
  if (cache instanceof RaggedPositions) return cache.attend(q, k, v, layer, window, options);
  const { key, value } = cache?.update(layer, k, v, window) ?? { key: k, value: v }; // [B, K, S, D]
  return attention(q, key, value, mask, options);
}
