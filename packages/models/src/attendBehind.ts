import { type AttentionOptions, type Tensor, attention, attentionAfter } from "@neolog/tensor";
import type { PositionCache } from "./kvCache.ts";

/** A layer's place, and what its queries see. */
export interface LayerView {
  /** Its place among the blocks, from 0. */
  readonly layer: number;
  /** How many positions a query sees, its own included; null for all. */
  readonly window: number | null;
  /** int32 [B | 1, 1, T, S]: 1 where a query sees a key. */
  readonly mask: Tensor;
}

/** q [B, H, T, D] to k, v [B, K, T, D] and to what the cache holds before them, if there is one → [B, H, T, D] */
export function attendBehind(
  cache: PositionCache | null,
  q: Tensor,
  k: Tensor,
  v: Tensor,
  { layer, window, mask }: LayerView,
  options: AttentionOptions,
): Tensor {
  const constants = cache?.before?.(layer);
  if (constants) return attentionAfter(constants, q, k, v, mask, options);
  const { key, value } = cache?.update(layer, k, v, window) ?? { key: k, value: v }; // [B, K, S, D]
  return attention(q, key, value, mask, options);
}
