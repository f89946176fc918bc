import { type Tensor, cat, persist } from "@neolog/tensor";

/** Keys and values of the positions seen so far, layer by layer; each [B, key/value heads, T, D]. */
export class KvCache {
  readonly #layers: { key: Tensor; value: Tensor }[] = [];
  #length = 0;

  /** Positions held. */
  get length(): number {
    return this.#length;
  }

  /** Appends the new positions of a layer and returns all of them. Layers are updated in order, from 0. */
  update(layer: number, key: Tensor, value: Tensor): { key: Tensor; value: Tensor } {
    const before = this.#layers[layer];
    const after = {
      key: persist(before ? cat([before.key, key], 2) : cat([key], 2)),
      value: persist(before ? cat([before.value, value], 2) : cat([value], 2)),
    };
    before?.key.dispose();
    before?.value.dispose();
    this.#layers[layer] = after;
    if (layer === 0) this.#length = after.key.shape[2]!;
    return after;
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
