import { ShapeError } from "@neolog/tensor";
import type { Dataset } from "./dataLoader.ts";
import type { Sequence } from "./padSequences.ts";

/** Lists of integers one after the other. */
export interface Ragged {
  readonly values: Int32Array;
  /** How many values each list has. */
  readonly lengths: Int32Array;
}

const KEYS = ["input_ids", "attention_mask", "labels"] as const;
/** A list of length 0 stands for one that is absent. */
export type SequenceColumns = { readonly [K in (typeof KEYS)[number]]: Ragged };

/**
 * Texts as ids in flat arrays: 4 bytes a token, and as many more for labels or a mask where a text has its own. `at` gives views of
 * them, nothing is copied. Throws ShapeError.
 */
export class SequenceDataset implements Dataset<Sequence> {
  readonly columns: SequenceColumns;
  readonly #starts: { readonly [K in keyof SequenceColumns]: Float64Array };

  constructor(columns: SequenceColumns) {
    const { length } = columns.input_ids.lengths;
    for (const key of KEYS) {
      const { values, lengths } = columns[key];
      const total = lengths.reduce((sum, n) => sum + (n < 0 ? NaN : n), 0);
      if (lengths.length === length && total === values.length) continue;
      const given = [[values.length], [lengths.length]] as const;
      throw new ShapeError(
        "SequenceDataset",
        `${key} must have a length for each text (${length}) and no value more`,
        ...given,
      );
    }
    this.columns = columns;
    this.#starts = {
      input_ids: startsOf(columns.input_ids),
      attention_mask: startsOf(columns.attention_mask),
      labels: startsOf(columns.labels),
    };
  }

  /** Takes texts as they come, such as lines of a file. */
  static async from(texts: Iterable<Sequence> | AsyncIterable<Sequence>): Promise<SequenceDataset> {
    const columns = { input_ids: new Growing(), attention_mask: new Growing(), labels: new Growing() };
    for await (const text of texts) for (const key of KEYS) columns[key].push(text[key] ?? []);
    return new SequenceDataset({
      input_ids: columns.input_ids.end(),
      attention_mask: columns.attention_mask.end(),
      labels: columns.labels.end(),
    });
  }

  get length(): number {
    return this.columns.input_ids.lengths.length;
  }
  /** Tokens of each text. */
  get lengths(): Int32Array {
    return this.columns.input_ids.lengths;
  }
  /** Tokens of all texts. */
  get tokens(): number {
    return this.columns.input_ids.values.length;
  }

  at(index: number): Sequence | undefined {
    if (this.lengths[index] === undefined) return undefined;
    return {
      input_ids: this.#row("input_ids", index),
      attention_mask: this.#rowIfAny("attention_mask", index),
      labels: this.#rowIfAny("labels", index),
    };
  }
  #row(key: keyof SequenceColumns, index: number): Int32Array {
    const start = this.#starts[key][index]!;
    return this.columns[key].values.subarray(start, start + this.columns[key].lengths[index]!);
  }
  #rowIfAny(key: keyof SequenceColumns, index: number): Int32Array | undefined {
    return this.columns[key].lengths[index] === 0 ? undefined : this.#row(key, index);
  }

  *[Symbol.iterator](): Generator<Sequence, void> {
    for (let i = 0; i < this.length; i++) yield this.at(i)!;
  }
}

function startsOf({ lengths }: Ragged): Float64Array {
  const starts = new Float64Array(lengths.length);
  for (let i = 1; i < starts.length; i++) starts[i] = starts[i - 1]! + lengths[i - 1]!;
  return starts;
}

/** A `Ragged` that more is written to. */
class Growing {
  #values = new Int32Array(256);
  #lengths = new Int32Array(16);
  #used = 0;
  #rows = 0;

  push(list: ArrayLike<number>): void {
    this.#values = withRoom(this.#values, this.#used + list.length);
    this.#lengths = withRoom(this.#lengths, this.#rows + 1);
    this.#values.set(list, this.#used);
    this.#lengths[this.#rows++] = list.length;
    this.#used += list.length;
  }
  end(): Ragged {
    return { values: this.#values.subarray(0, this.#used), lengths: this.#lengths.subarray(0, this.#rows) };
  }
}

function withRoom(values: Int32Array<ArrayBuffer>, needed: number): Int32Array<ArrayBuffer> {
  if (needed <= values.length) return values;
  const grown = new Int32Array(Math.max(needed, Math.ceil(values.length * 1.5)));
  grown.set(values);
  return grown;
}
