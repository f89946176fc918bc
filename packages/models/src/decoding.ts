import type { Tensor } from "@neolog/tensor";
import type { CausalLMOutput, ModelInputs } from "./causalLm.ts";
import { KvCache } from "./kvCache.ts";

/** Rows that grow token by token, and the model that runs over them: all that `generate` knows of a model's kind. */
export interface Decoding {
  /** The ids of each row so far; they begin with the prompt, or with the start token of a decoder that has none. */
  readonly ids: readonly number[][];
  /** Runs what was not run yet: logits [B, 1, vocab] of the token after each row. */
  next(): Tensor;
  /** Frees what `next` keeps. */
  dispose(): void;
}

/** The prompt of each row, and 0 in `attention` where it is padding. */
export interface Prompt {
  readonly ids: number[][];
  readonly attention: number[][];
}

/**
 * A decoder over a prompt and what follows it. Keys and values are cached; positions are counted without the padding. Where a model
 * turns its keys otherwise once a text, without padding, is longer than `turns`, it is run again from its beginning then.
 */
export class CausalDecoding implements Decoding {
  readonly ids: number[][];
  readonly #model: { forward(inputs: ModelInputs): CausalLMOutput };
  readonly #cache = new KvCache();
  /** Null where nothing is padded: positions and mask are the plain ones. */
  readonly #attention: number[][] | null;
  /** The next position of each row. */
  readonly #positions: number[];
  /** How many columns there may be before the keys turn otherwise. */
  readonly #turns: number;

  constructor(model: { forward(inputs: ModelInputs): CausalLMOutput }, { ids, attention }: Prompt, turns = Infinity) {
    this.#model = model;
    this.#turns = turns + Math.min(...attention.map((row) => row.filter((attended) => !attended).length));
    this.ids = ids;
    this.#attention = attention.some((row) => row.includes(0)) ? attention : null;
    this.#positions = ids.map(() => 0);
  }

  next(): Tensor {
    if (this.#cache.length <= this.#turns && this.ids[0]!.length > this.#turns) this.#forget();
    const past = this.#cache.length;
    const input_ids = this.ids.map((row) => row.slice(past));
    const inputs = { input_ids, past_key_values: this.#cache, logits_to_keep: 1 };
    return this.#model.forward(this.#attention ? { ...inputs, ...this.#padded(this.#attention, past) } : inputs).logits;
  }

  dispose(): void {
    this.#cache.dispose();
  }

  #forget(): void {
    this.#cache.dispose();
    this.#positions.fill(0);
  }

  /** Mask and positions; padding has position 1, as in transformers. */
  #padded(attention: number[][], past: number): Pick<ModelInputs, "attention_mask" | "position_ids"> {
    const position_ids = attention.map((row, b) => {
      while (row.length < this.ids[b]!.length) row.push(1);
      return row.slice(past).map((attended) => (attended ? this.#positions[b]!++ : 1));
    });
    return { attention_mask: attention, position_ids };
  }
}
