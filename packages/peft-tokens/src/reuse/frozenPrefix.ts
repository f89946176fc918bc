import type { PositionCache } from "@neolog/models";
import { BYTES_PER_ELEMENT, type KeysAndValues, type Tensor, cat, detach, persist, slice } from "@neolog/tensor";

/** Keys and values of the first positions of one sample, layer by layer: constants that later positions attend to, with gradients. */
export class FrozenPrefix implements PositionCache {
  readonly length: number;
  readonly #layers: readonly KeysAndValues[];

  constructor(length: number, layers: readonly KeysAndValues[]) {
    this.length = length;
    this.#layers = layers;
  }

  get bytes(): number {
    const of = (t: Tensor): number => BYTES_PER_ELEMENT[t.dtype] * t.size;
    return this.#layers.reduce((sum, { key, value }) => sum + of(key) + of(value), 0);
  }

  /** The same for the scope around this call, whatever is disposed in it. */
  view(): FrozenPrefix {
    return new FrozenPrefix(
      this.length,
      this.#layers.map(({ key, value }) => ({ key: detach(key), value: detach(value) })),
    );
  }

  before(layer: number): KeysAndValues {
    return this.#layers[layer]!;
  }
  update(layer: number, key: Tensor, value: Tensor): KeysAndValues {
    const before = this.before(layer);
    return { key: cat([before.key, key], 2), value: cat([before.value, value], 2) };
  }

  dispose(): void {
    for (const { key, value } of this.#layers) {
      key.dispose();
      value.dispose();
    }
  }
}

/** Takes down what a run over the first positions gives every layer. */
export class PrefixRecorder implements PositionCache {
  readonly length = 0;
  readonly #layers: KeysAndValues[] = [];

  update(layer: number, key: Tensor, value: Tensor, window: number | null = null): KeysAndValues {
    this.#layers[layer] = { key: seenLater(key, window), value: seenLater(value, window) };
    return { key, value };
  }

  /** What was taken down, of `length` positions; it lives until disposed. */
  finish(length: number): FrozenPrefix {
    return new FrozenPrefix(length, this.#layers);
  }
}

/** A copy of the positions that queries behind them may see: the last window − 1. */
function seenLater(x: Tensor, window: number | null): Tensor {
  const length = x.shape[2]!;
  const held = window === null ? length : Math.min(length, window - 1);
  return persist(cat([slice(x, 2, length - held)], 2));
}
