import type { AttentionOptions, Tensor } from "@neolog/tensor";
import { type LayerView, attendBehind } from "./attendBehind.ts";
import type { PositionCache } from "./kvCache.ts";
import { RaggedPositions } from "./raggedPositions.ts";

/** Where a decoder finds keys and values of earlier positions: one text to each row, or several in one. */
export type DecoderCache = PositionCache | RaggedPositions;

/** A layer's place, and what its queries see. */
export interface AttentionInputs extends LayerView {
  readonly cache: DecoderCache | undefined;
}

/** q [B, H, T, D] to k, v [B, K, T, D] and to what the cache holds before them → [B, H, T, D] */
export function cachedAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  { cache, ...view }: AttentionInputs,
  options: AttentionOptions = {},
): Tensor {
  if (cache instanceof RaggedPositions) return cache.attend(q, k, v, view.layer, view.window, options);
  return attendBehind(cache ?? null, q, k, v, view, options);
}
