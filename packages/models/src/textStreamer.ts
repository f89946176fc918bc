/** What turns ids into text: a Tokenizer, say. */
export interface TokenDecoder {
  decode(ids: readonly number[], options?: { readonly skipSpecialTokens?: boolean }): string;
}

/** Ids of the prompt that are decoded with the new ones, so that the first new token keeps the space before it. */
const CONTEXT = 5;
/** What bytes decode to that are no whole character. The last three may still become one. */
const REPLACEMENT = "\uFFFD";
const PENDING = /\uFFFD{1,3}$/;

export interface TextStreamerOptions {
  /** Ids before the new ones; they give no text. */
  readonly prompt?: readonly number[];
  /** True by default. */
  readonly skipSpecialTokens?: boolean;
}

/**
 * The text of one growing row, in pieces that together are the text of the whole: a character whose bytes come with several tokens is
 * held back until the last of them. Like TextStreamer in transformers, but for whole characters instead of whole words.
 */
export class TextStreamer {
  readonly #decoder: TokenDecoder;
  readonly #skipSpecialTokens: boolean;
  /** Ids whose text is out; it begins with a whole character. */
  #context: number[];
  #held: number[] = [];
  /** How much of the text of `#held` is out. */
  #released = 0;

  constructor(decoder: TokenDecoder, { prompt = [], skipSpecialTokens = true }: TextStreamerOptions = {}) {
    this.#decoder = decoder;
    this.#skipSpecialTokens = skipSpecialTokens;
    let start = Math.max(0, prompt.length - CONTEXT);
    while (start > 0 && this.#decode(prompt.slice(start)).startsWith(REPLACEMENT)) start--;
    this.#context = prompt.slice(start);
  }

  /** Adds a token and returns the text that is complete with it, "" where none is. */
  put(id: number): string {
    this.#held.push(id);
    const text = this.#newText();
    const complete = text.replace(PENDING, "");
    if (complete === text) return this.#release(text);
    const piece = complete.slice(this.#released);
    this.#released += piece.length;
    return piece;
  }

  /** What is still held back, complete or not. */
  end(): string {
    return this.#release(this.#newText());
  }

  #release(text: string): string {
    const piece = text.slice(this.#released);
    // tokens without a text of their own decode like the start of one: the space after them would be lost
    this.#context = text === "" ? [...this.#context, ...this.#held] : this.#held;
    this.#held = [];
    this.#released = 0;
    return piece;
  }
  #newText(): string {
    const text = this.#decode([...this.#context, ...this.#held]);
    return text.slice(commonLength(this.#decode(this.#context), text));
  }
  #decode(ids: readonly number[]): string {
    return this.#decoder.decode(ids, { skipSpecialTokens: this.#skipSpecialTokens });
  }
}

/** How many code units two texts begin with in common. */
function commonLength(a: string, b: string): number {
  let n = 0;
  while (n < a.length && a[n] === b[n]) n++;
  return n;
}
