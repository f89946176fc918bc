import { type Tensor, persist } from "@neolog/tensor";
import type { Decoding, Prompt } from "./decoding.ts";
import { EncoderDecoderCache } from "./encoderDecoderCache.ts";
import type { Seq2SeqLMInputs, Seq2SeqLMOutput } from "./seq2SeqLm.ts";

/** A decoder that begins with one token in every row and reads what the encoder makes of the prompt, once. */
export class Seq2SeqDecoding implements Decoding {
  readonly ids: number[][];
  readonly #model: { forward(inputs: Seq2SeqLMInputs): Seq2SeqLMOutput };
  readonly #prompt: Prompt;
  readonly #cache = new EncoderDecoderCache();
  #encoded: Tensor | undefined;

  constructor(model: { forward(inputs: Seq2SeqLMInputs): Seq2SeqLMOutput }, prompt: Prompt, start: number) {
    this.#model = model;
    this.#prompt = prompt;
    this.ids = prompt.ids.map(() => [start]);
  }

  next(): Tensor {
    const { logits, encoder_last_hidden_state } = this.#model.forward({
      input_ids: this.#prompt.ids,
      attention_mask: this.#prompt.attention,
      encoder_outputs: this.#encoded,
      decoder_input_ids: this.ids.map((row) => row.slice(this.#cache.length)),
      past_key_values: this.#cache,
      logits_to_keep: 1,
    });
    this.#encoded ??= persist(encoder_last_hidden_state);
    return logits;
  }

  dispose(): void {
    this.#encoded?.dispose();
    this.#cache.dispose();
  }
}
