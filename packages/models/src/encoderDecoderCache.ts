import { type Tensor, contiguous, persist } from "@neolog/tensor";
import { KvCache } from "./kvCache.ts";

/** Keys and values of one attention, each [B, H, S, D]. */
export interface KeyValue {
  readonly key: Tensor;
  readonly value: Tensor;
}

/** What decoding keeps: of the decoder's own positions all that were seen, of the encoder's what each layer made of them once. */
export class EncoderDecoderCache {
  readonly self = new KvCache();
  readonly #cross: KeyValue[] = [];

  /** Positions of the decoder seen. */
  get length(): number {
    return this.self.length;
  }

  /** Keys and values of the encoder's output for a layer; `project` makes them where the layer has none. */
  cross(layer: number, project: () => KeyValue): KeyValue {
    const held = this.#cross[layer];
    if (held) return held;
    const { key, value } = project();
    return (this.#cross[layer] = { key: persist(contiguous(key)), value: persist(contiguous(value)) });
  }

  dispose(): void {
    this.self.dispose();
    for (const { key, value } of this.#cross) {
      key.dispose();
      value.dispose();
    }
    this.#cross.length = 0;
  }
}
