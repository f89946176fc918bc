import type { GenerationConfig } from "./config.ts";
import type { IdMatrix } from "./inputs.ts";
import type { TokenDecoder } from "./textStreamer.ts";

/** An option of `generate` is out of its range, or does not go with the others. */
export class GenerateOptionError extends RangeError {
  override readonly name = "GenerateOptionError";
  readonly option: string;

  constructor(option: string, mustHold: string, found: unknown) {
    super(`generate: ${option} must be ${mustHold}, got ${typeof found === "string" ? `"${found}"` : String(found)}`);
    this.option = option;
  }
}

/** Options of `generate`, named as in transformers. */
export interface GenerateOptions {
  /** [B, T], padded on the left where rows differ in length. */
  readonly input_ids: IdMatrix;
  readonly attention_mask?: IdMatrix | undefined;
  /** 20 by default, or what max_length leaves. */
  readonly max_new_tokens?: number | undefined;
  /** Of prompt and continuation together; max_new_tokens takes precedence. */
  readonly max_length?: number | undefined;
  /** No end token before so many new ones. */
  readonly min_new_tokens?: number | undefined;
  readonly min_length?: number | undefined;
  /** Draw from the distribution; greedy when false, the default. Only then do temperature, top_k, top_p and min_p act. */
  readonly do_sample?: boolean | undefined;
  readonly temperature?: number | undefined;
  readonly top_k?: number | undefined;
  readonly top_p?: number | undefined;
  readonly min_p?: number | undefined;
  readonly repetition_penalty?: number | undefined;
  readonly no_repeat_ngram_size?: number | undefined;
  /** Continuations of each row, one after the other; more than one needs do_sample. */
  readonly num_return_sequences?: number | undefined;
  /** Seed of the draws; 0 by default. */
  readonly seed?: number | undefined;
  /** Where a row ends; what generation_config.json (else config.json) says by default, null for never. */
  readonly eos_token_id?: number | readonly number[] | null | undefined;
  /** What finished rows are filled with; what the same file says, else the first end token. */
  readonly pad_token_id?: number | null | undefined;
  /** A row also ends with the token that completes one of these texts; needs `tokenizer`. */
  readonly stop_strings?: string | readonly string[] | undefined;
  readonly tokenizer?: TokenDecoder | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Called after each step with the new id of every row; the next step waits for what it returns. */
  readonly onToken?: ((ids: readonly number[]) => unknown) | undefined;
}

type Range = readonly [mustHold: string, holds: (x: number) => boolean];
const count: Range = ["an integer of at least 0", (x) => Number.isInteger(x) && x >= 0];
const positiveCount: Range = ["an integer of at least 1", (x) => Number.isInteger(x) && x >= 1];
const positive: Range = ["above 0", (x) => x > 0 && x < Infinity];

const RANGES: Readonly<Record<string, Range>> = {
  max_new_tokens: count,
  max_length: positiveCount,
  min_new_tokens: count,
  min_length: count,
  temperature: ["above 0 (for greedy decoding leave do_sample out)", positive[1]],
  top_k: count,
  top_p: ["above 0 and at most 1", (x) => x > 0 && x <= 1],
  min_p: ["between 0 and 1", (x) => x >= 0 && x <= 1],
  repetition_penalty: positive,
  no_repeat_ngram_size: count,
  num_return_sequences: positiveCount,
  seed: ["an integer", Number.isSafeInteger],
};

/** Options of transformers that change the result and that we do not have, with the values that change nothing. */
const UNSUPPORTED: Readonly<Record<string, readonly unknown[]>> = {
  num_beams: [1],
  num_beam_groups: [1],
  penalty_alpha: [0],
  typical_p: [1],
  top_h: [],
  epsilon_cutoff: [0],
  eta_cutoff: [0],
  encoder_repetition_penalty: [1],
  encoder_no_repeat_ngram_size: [0],
  bad_words_ids: [],
  sequence_bias: [],
  suppress_tokens: [],
  begin_suppress_tokens: [],
  forced_bos_token_id: [],
  forced_eos_token_id: [],
  exponential_decay_length_penalty: [],
  guidance_scale: [1],
  length_penalty: [1],
  constraints: [],
  force_words_ids: [],
  prefix_allowed_tokens_fn: [],
  logits_processor: [],
  stopping_criteria: [],
  assistant_model: [],
  watermarking_config: [],
};

/** Throws GenerateOptionError for what is out of range, for what contradicts another option, and for what only transformers has. */
export function checkOptions(options: GenerateOptions): void {
  for (const [option, value] of Object.entries(options)) {
    if (value === undefined) continue;
    const range = RANGES[option];
    if (range && !(typeof value === "number" && range[1](value))) {
      throw new GenerateOptionError(option, range[0], value);
    }
    const harmless = UNSUPPORTED[option];
    if (harmless && value !== null && !harmless.includes(value)) {
      throw new GenerateOptionError(option, "left out: it is not supported", value);
    }
  }
  const { num_return_sequences = 1, do_sample, stop_strings, tokenizer } = options;
  if (num_return_sequences > 1 && !do_sample) {
    const mustHold = "1 without do_sample (greedy continuations of a row are all the same)";
    throw new GenerateOptionError("num_return_sequences", mustHold, num_return_sequences);
  }
  const stops = [stop_strings ?? []].flat();
  if (stops.includes("")) throw new GenerateOptionError("stop_strings", "texts of at least one character", "");
  if (stops.length > 0 && !tokenizer) {
    throw new GenerateOptionError("tokenizer", "given together with stop_strings", undefined);
  }
}

/** The end tokens and the padding token: what the options say, else what the model's files say. */
export function endsAndPad(
  options: GenerateOptions,
  { eos_token_id, pad_token_id }: Pick<GenerationConfig, "eos_token_id" | "pad_token_id">,
): { readonly ends: readonly number[]; readonly pad: number } {
  const given = options.eos_token_id === undefined ? eos_token_id : options.eos_token_id;
  const ends = [given ?? []].flat();
  const padding = options.pad_token_id === undefined ? pad_token_id : options.pad_token_id;
  return { ends, pad: padding ?? ends[0] ?? 0 };
}

/**
 * How many tokens to add to rows of `length`: 20 where nothing is said, fewer where the model has no more positions. Throws
 * GenerateOptionError where max_length leaves none.
 */
export function newTokensOf(
  { max_new_tokens, max_length }: GenerateOptions,
  length: number,
  positions?: number,
): number {
  if (max_new_tokens !== undefined) return max_new_tokens;
  const longest = max_length ?? Math.min(length + 20, positions ?? Infinity);
  if (longest <= length) {
    throw new GenerateOptionError(
      "max_length",
      `above the length of input_ids (${length}); set max_new_tokens`,
      longest,
    );
  }
  return longest - length;
}
