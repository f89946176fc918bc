import { type Tensor, cat, persist, slice } from "@neolog/tensor";

/** Keys and values of the positions seen so far, layer by layer; each [B, key/value heads, T, D]. */
export class KvCache {
  readonly #layers: { key: Tensor; value: Tensor }[] = [];
  #length = 0;

  /** Positions seen. */
  get length(): number {
    return this.#length;
  }

  /**
   * Appends the new positions of a layer and returns all that they may see. Layers are updated in order, from 0. A layer with a
   * window holds its last window − 1 positions alone: no later query sees more.
   */
  update(layer: number, key: Tensor, value: Tensor, window: number | null = null): { key: Tensor; value: Tensor } {
    const before = this.#layers[layer];
    const all = {
      key: cat(before ? [before.key, key] : [key], 2),
      value: cat(before ? [before.value, value] : [value], 2),
    };
    this.#layers[layer] = { key: lastOf(all.key, window), value: lastOf(all.value, window) };
    before?.key.dispose();
    before?.value.dispose();
    if (layer === 0) this.#length += key.shape[2]!;
    return all;
  }

  /** Keys and values of one layer. */
  at(layer: number): { readonly key: Tensor; readonly value: Tensor } | undefined {
    return this.#layers[layer];
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

/** The last window − 1 positions of x [B, K, T, D], x itself where it has no more; kept beyond the scope. */
function lastOf(x: Tensor, window: number | null): Tensor {
  const excess = window === null ? 0 : x.shape[2]! - (window - 1);
  return persist(excess > 0 ? cat([slice(x, 2, excess)], 2) : x);
}
