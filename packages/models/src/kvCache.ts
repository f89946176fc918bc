import type { KeysAndValues, Tensor } from "@neolog/tensor";
import { CachedPositions } from "./cachedPositions.ts";

interface Layer {
  readonly key: CachedPositions;
  readonly value: CachedPositions;
}

/** What a decoder asks of a cache. */
export interface PositionCache {
  /** Positions before those of the call. */
  readonly length: number;
  /** The call's keys and values of a layer [B, heads, T, D] → behind those that its queries may see too, [B, heads, S, D]. */
  update(layer: number, key: Tensor, value: Tensor, window?: number | null): KeysAndValues;
  /** Where it only holds constants: those of a layer, which the call's own come behind. Absent where it takes part in calls. */
  before?(layer: number): KeysAndValues;
}

/**
 * Keys and values of the positions seen so far, layer by layer; each [B, key/value heads, T, D]. What `update` and `at` give is valid
 * until the layer's next update. Rows of a batch have one length: shorter ones are padded on the left.
 */
export class KvCache implements PositionCache {
  readonly #layers: Layer[] = [];
  #length = 0;

  /** Positions seen. */
  get length(): number {
    return this.#length;
  }

  /**
   * Appends the new positions of a layer and returns all that they may see. Layers are updated in order, from 0. A layer with a
   * window holds its last window − 1 positions alone: no later query sees more. Throws CacheGradientError, ShapeError.
   */
  update(layer: number, key: Tensor, value: Tensor, window: number | null = null): KeysAndValues {
    const held = (this.#layers[layer] ??= { key: new CachedPositions(), value: new CachedPositions() });
    const all = { key: held.key.append(key, window), value: held.value.append(value, window) };
    if (layer === 0) this.#length += key.shape[2]!;
    return all;
  }

  /** Keys and values that one layer holds. */
  at(layer: number): KeysAndValues | undefined {
    const held = this.#layers[layer];
    return held?.key.held && held.value.held ? { key: held.key.held, value: held.value.held } : undefined;
  }

  dispose(): void {
    for (const { key, value } of this.#layers) {
      key.dispose();
      value.dispose();
    }
    this.#layers.length = 0;
    this.#length = 0;
  }
}
