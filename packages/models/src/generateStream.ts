import { type GenerateOptions, GenerateOptionError } from "./generateOptions.ts";
import { toHost } from "./inputs.ts";
import { type TokenDecoder, TextStreamer } from "./textStreamer.ts";

export interface StreamOptions extends GenerateOptions {
  readonly tokenizer: TokenDecoder;
  /** Leave out special tokens; true by default. */
  readonly skip_special_tokens?: boolean | undefined;
}

/**
 * The continuation of one row as text, piece by piece while it is made: `for await (const text of generateStream(model, options))`.
 * No piece ends within a character. The next token waits until the loop asks for more; leaving the loop, or the signal, ends the run
 * and frees what it held. Throws what `generate` throws.
 */
export async function* generateStream(
  model: { generate(options: GenerateOptions): Promise<number[][]> },
  options: StreamOptions,
): AsyncGenerator<string, void, void> {
  const { rows, values } = toHost("input_ids", options.input_ids);
  if (rows !== 1) throw new GenerateOptionError("input_ids", "one row, to stream its text", `${rows} rows`);
  if ((options.num_return_sequences ?? 1) !== 1) {
    throw new GenerateOptionError("num_return_sequences", "1, to stream a text", options.num_return_sequences);
  }
  const { tokenizer, skip_special_tokens = true } = options;
  const streamer = new TextStreamer(tokenizer, { prompt: [...values], skipSpecialTokens: skip_special_tokens });
  const left = new AbortController();
  const signal = options.signal ? AbortSignal.any([options.signal, left.signal]) : left.signal;
  const turns = new Turns<string>();
  signal.addEventListener("abort", () => turns.end());
  const onToken = async (ids: readonly number[]): Promise<void> => {
    await turns.give(streamer.put(ids[0]!));
    await options.onToken?.(ids);
  };
  const run = model.generate({ ...options, signal, onToken }).finally(() => turns.end());
  run.catch(() => {}); // it is awaited below, or was left
  try {
    for await (const text of turns.take()) if (text !== "") yield text;
    await run;
    const rest = streamer.end();
    if (rest !== "") yield rest;
  } finally {
    left.abort();
    await run.catch(() => {});
  }
}

/** Hands values from one side to the other, one at a time: the giver waits until its value was taken and the next one is asked for. */
class Turns<T> {
  #value: { readonly given: T } | null = null;
  #ended = false;
  #wakeGiver = (): void => {};
  #wakeTaker = (): void => {};

  give(value: T): Promise<void> {
    if (this.#ended) return Promise.resolve();
    this.#value = { given: value };
    this.#wakeTaker();
    return new Promise((resolve) => (this.#wakeGiver = resolve));
  }
  end(): void {
    this.#ended = true;
    this.#wakeGiver();
    this.#wakeTaker();
  }
  async *take(): AsyncGenerator<T, void, void> {
    while (true) {
      if (this.#value) {
        const { given } = this.#value;
        this.#value = null;
        yield given;
        this.#wakeGiver();
      } else if (this.#ended) return;
      else await new Promise<void>((resolve) => (this.#wakeTaker = resolve));
    }
  }
}
