import { CheckpointError } from "@neolog/checkpoint";
import { type Sequence, SequenceDataset, type Tokenizer } from "@neolog/models";
import { stat } from "node:fs/promises";
import { encodeChat } from "./chat.ts";
import { CliError } from "./errors.ts";
import { IGNORED, type ModelKind, cut, predicted, predictedTokens } from "./example.ts";
import { linesOf } from "./lines.ts";

export interface ReadOptions {
  /** For rows of text; rows of input_ids need none. */
  readonly tokenizer: Tokenizer | null;
  /** Ids must lie below. */
  readonly vocabSize: number;
  /** "causal" where absent. */
  readonly kind?: ModelKind;
  /** Longer rows are cut. */
  readonly maxLength?: number | undefined;
  /** Hears how many bytes of the file have been read. */
  readonly onBytes?: ((bytes: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Reads a JSONL file, a line after the other: `{"text"}`, `{"prompt", "completion"}` (the prompt is not predicted, an end token
 * follows the completion), `{"messages", "tools"?}` (only the assistant's turns are predicted) or `{"input_ids", "attention_mask"?,
 * "labels"?}`. For an encoder-decoder the prompt is the encoder's and the completion the decoder's, as are input_ids and labels; a
 * masked language model takes input_ids and labels alone. Blank lines are skipped, rows that predict nothing are refused. Throws
 * CliError that names file and line.
 */
export async function readExamples(file: string, options: ReadOptions): Promise<SequenceDataset> {
  await sizeOf(file);
  const examples = await SequenceDataset.from(examplesIn(file, options));
  if (examples.length === 0) throw new CliError(`${file}: must hold at least one row, found none`);
  return examples;
}

/** Bytes of a data file. Throws CheckpointError NOT_FOUND. */
export async function sizeOf(file: string): Promise<number> {
  const found = await stat(file).catch(() => null);
  if (found?.isFile()) return found.size;
  throw new CheckpointError("NOT_FOUND", `${file}: must be a JSONL file, found ${found ? "a folder" : "nothing"}`);
}

async function* examplesIn(file: string, options: ReadOptions): AsyncGenerator<Sequence, void> {
  let number = 0;
  for await (const lines of linesOf(file, options.onBytes)) {
    options.signal?.throwIfAborted();
    for (const line of lines) {
      number++;
      if (line.trim() !== "") yield toExample(line, `${file}:${number}`, options);
    }
  }
}

function toExample(line: string, where: string, options: ReadOptions): Sequence {
  let row: unknown;
  try {
    row = JSON.parse(line);
  } catch (error) {
    throw new CliError(`${where}: must be a JSON object on one line, got ${(error as Error).message}`);
  }
  const example = cut(encodeRow(row, where, options), options.maxLength);
  const { vocabSize } = options;
  const isOutside = (id: number): boolean => id < 0 || id >= vocabSize;
  const outside =
    Array.from(example.input_ids).find(isOutside) ??
    Array.from(example.labels ?? []).find((label) => label !== IGNORED && isOutside(label));
  if (outside !== undefined) throw new CliError(`${where}: ids must be in [0, ${vocabSize}), got ${outside}`);
  const { kind = "causal" } = options;
  if (predictedTokens(example, kind) === 0) {
    const after = kind === "causal" ? " after the first" : "";
    throw new CliError(`${where}: must give at least one token to predict${after}, got none`);
  }
  return example;
}

function encodeRow(row: unknown, where: string, { tokenizer, kind = "causal" }: ReadOptions): Sequence {
  const fields = (row ?? {}) as Record<string, unknown>;
  if (kind !== "causal") return kind === "masked" ? labelled(fields, where) : translated(fields, where, tokenizer);
  const { text, prompt, completion, messages } = fields;
  if (fields["input_ids"] !== undefined) return tokenized(fields, where);
  const isText = typeof text === "string";
  if (!isText && messages === undefined && (typeof prompt !== "string" || typeof completion !== "string")) {
    throw new CliError(
      `${where}: must hold "text", "prompt" and "completion", "messages", or "input_ids", got ${keysOf(row)}`,
    );
  }
  if (!tokenizer) throw new CliError(`${where}: text needs a tokenizer; the model's folder must hold tokenizer.json`);
  if (isText) return predicted(tokenizer.encode(text));
  if (messages !== undefined) return encodeChat(fields, tokenizer, where);
  const start = tokenizer.encode(prompt as string);
  const end = tokenizer.eosTokenId;
  const rest = tokenizer.encode(completion as string, { addSpecialTokens: false });
  return predicted([...start, ...rest, ...(end === undefined ? [] : [end])], start.length);
}

/** Ids with the tokens that stood at the labelled positions. */
function labelled(fields: Record<string, unknown>, where: string): Sequence {
  if (fields["input_ids"] !== undefined && fields["labels"] !== undefined) return tokenized(fields, where);
  throw new CliError(`${where}: must hold "input_ids" and "labels" for a masked language model, got ${keysOf(fields)}`);
}

/** What the encoder reads, and what the decoder is to write. */
function translated(fields: Record<string, unknown>, where: string, tokenizer: Tokenizer | null): Sequence {
  const { prompt, completion, input_ids, attention_mask, labels } = fields;
  if (input_ids !== undefined && labels !== undefined) {
    const { labels: _, ...source } = tokenized({ input_ids, attention_mask }, where);
    return { ...source, labels: integers(labels, "labels", where) };
  }
  if (typeof prompt !== "string" || typeof completion !== "string") {
    throw new CliError(
      `${where}: must hold "prompt" and "completion", or "input_ids" and "labels", for an encoder-decoder, got ${keysOf(fields)}`,
    );
  }
  if (!tokenizer) throw new CliError(`${where}: text needs a tokenizer; the model's folder must hold tokenizer.json`);
  const end = tokenizer.eosTokenId;
  const encoded = (text: string): number[] => {
    const ids = tokenizer.encode(text);
    return end === undefined || ids.at(-1) === end ? ids : [...ids, end];
  };
  return { ...predicted(encoded(prompt)), labels: encoded(completion) };
}

function tokenized({ input_ids, attention_mask, labels }: Record<string, unknown>, where: string): Sequence {
  const ids = integers(input_ids, "input_ids", where);
  const wanted = labels === undefined ? ids : integers(labels, "labels", where, ids.length);
  if (attention_mask === undefined) return { input_ids: ids, labels: labels === undefined ? undefined : wanted };
  const mask = integers(attention_mask, "attention_mask", where, ids.length).map((value) => (value === 0 ? 0 : 1));
  return {
    input_ids: ids,
    attention_mask: mask,
    labels: wanted.map((label, i) => (mask[i] === 0 ? IGNORED : label)),
  };
}

function integers(value: unknown, key: string, where: string, length?: number): number[] {
  if (!Array.isArray(value) || !value.every(Number.isSafeInteger)) {
    throw new CliError(
      `${where}: "${key}" must be a list of whole numbers, got ${JSON.stringify(value)?.slice(0, 60)}`,
    );
  }
  if (length !== undefined && value.length !== length) {
    throw new CliError(`${where}: "${key}" must be as long as "input_ids" (${length}), got ${value.length}`);
  }
  return value as number[];
}

const keysOf = (row: unknown): string =>
  typeof row === "object" && row !== null && !Array.isArray(row)
    ? `keys ${Object.keys(row).join(", ") || "(none)"}`
    : JSON.stringify(row);
