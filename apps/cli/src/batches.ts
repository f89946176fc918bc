import {
  BatchSampler,
  DataLoader,
  type Dataset,
  type HostMatrix,
  type Sequence,
  packSequences,
  padSequences,
} from "@neolog/models";
import { CliError } from "./errors.ts";
import type { ModelKind } from "./example.ts";

export const BATCHINGS = ["random", "bucketed"] as const;

export interface BatchOptions {
  readonly batch_size: number;
  readonly shuffle: boolean;
  readonly seed: number;
  /** Random where absent. */
  readonly batching?: (typeof BATCHINGS)[number];
  /** False where absent. */
  readonly packing?: boolean;
}

/** What a step takes. */
export interface Batch {
  readonly inputs: Readonly<Record<"input_ids" | "labels", HostMatrix>> &
    Readonly<Partial<Record<"attention_mask" | "position_ids", HostMatrix>>>;
  /** Positions of the model's input that hold a token, and those that hold none. */
  readonly tokens: number;
  readonly padding: number;
}

/**
 * Batches of examples: each epoch every one of them once, padded to the longest of its batch, or packed into rows of several. Throws
 * CliError where they cannot be packed.
 */
export function batchesOf(
  examples: Dataset<Sequence>,
  options: BatchOptions,
  kind: ModelKind,
): DataLoader<Sequence, Batch> {
  const { batch_size: batchSize, shuffle, seed, batching, packing } = options;
  const lengths = batching === "bucketed" ? lengthsOf(examples, kind) : undefined;
  if (packing) checkPackable(examples, kind);
  return new DataLoader(examples, {
    batchSampler: new BatchSampler(examples.length, { batchSize, shuffle, seed, lengths }),
    collate: packing ? packed : padded,
  });
}

/** Tokens that a row computes: those of the encoder and the decoder, where there are two. */
function lengthsOf(examples: Dataset<Sequence>, kind: ModelKind): Int32Array {
  return Int32Array.from({ length: examples.length }, (_, i) => {
    const { input_ids, labels } = examples.at(i)!;
    return input_ids.length + (kind === "seq2seq" ? labels!.length : 0);
  });
}

function padded(rows: readonly Sequence[]): Batch {
  return counted(padSequences(rows), rows);
}

function packed(rows: readonly Sequence[]): Batch {
  const bare = rows.map(withoutPadding);
  const ways = bare.map((_, i) => packSequences(bare, { rows: i + 1 }));
  return counted(
    ways.reduce((a, b) => (costOf(b.input_ids) < costOf(a.input_ids) ? b : a)),
    bare,
  );
}

/** About what a row costs beside attention, in positions that attention sees: 6 · hidden, here of a hidden size of 768. */
const LAYER_COST = 6 * 768;
/** Operations of a batch, in some unit: long rows leave few places free, but attention looks along all of a row. */
export const costOf = ({ rows, columns }: HostMatrix): number => rows * columns * (LAYER_COST + columns);

function counted(inputs: Batch["inputs"], rows: readonly Sequence[]): Batch {
  const tokens = rows.reduce((sum, row) => sum + attended(row), 0);
  return { inputs, tokens, padding: inputs.input_ids.values.length - tokens };
}

const attended = ({ input_ids, attention_mask }: Sequence): number =>
  attention_mask ? Array.from(attention_mask).filter((value) => value !== 0).length : input_ids.length;

/** A row without the masked positions at its end. */
function withoutPadding({ input_ids, attention_mask, labels = input_ids }: Sequence): Sequence {
  if (!attention_mask) return { input_ids, labels };
  let end = input_ids.length;
  while (attention_mask[end - 1] === 0) end--;
  const start = (list: ArrayLike<number>): number[] => Array.from(list).slice(0, end);
  return { input_ids: start(input_ids), attention_mask: start(attention_mask), labels: start(labels) };
}

function checkPackable(examples: Dataset<Sequence>, kind: ModelKind): void {
  if (kind !== "causal") {
    const found = kind === "masked" ? "a masked language model" : "an encoder-decoder";
    throw new CliError(
      `--packing: must be for a causal language model, where positions that begin again part texts, got ${found}`,
    );
  }
  for (let i = 0; i < examples.length; i++) {
    const { attention_mask } = withoutPadding(examples.at(i)!);
    if (
      attention_mask === undefined ||
      attended({ input_ids: attention_mask, attention_mask }) === attention_mask.length
    )
      continue;
    throw new CliError(`--packing: rows must have masked positions at their end alone, got others in row ${i + 1}`);
  }
}
