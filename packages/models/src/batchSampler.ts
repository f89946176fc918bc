import { Random } from "@neolog/tensor";

export interface BatchSamplerOptions {
  readonly batchSize: number;
  /** Draw another order for each epoch; false by default. */
  readonly shuffle?: boolean | undefined;
  /** Of the order; 0 by default. */
  readonly seed?: number | undefined;
  /** The length of each example, for batches of examples that are about equally long; see `BatchSampler`. */
  readonly lengths?: ArrayLike<number> | undefined;
}

/** As many batches are sorted by length together; transformers' group_by_length sorts 50. */
const SORTED_BATCHES = 50;

/**
 * Which examples each batch holds: each epoch every example exactly once, in an order that depends on seed and epoch alone, so that a
 * run can go on from any step. With `lengths` the examples of 50 batches are sorted by length before they are cut into batches, and
 * the batches then shuffled: little padding, and all lengths all the time. Without `shuffle` nothing is drawn: the order of the
 * examples, or of their lengths within each 50 batches. The last batch may be smaller. Throws RangeError.
 */
export class BatchSampler {
  readonly size: number;
  readonly batchSize: number;
  readonly #shuffle: boolean;
  readonly #seed: number;
  readonly #lengths: ArrayLike<number> | null;
  #drawn: { readonly epoch: number; readonly batches: readonly (readonly number[])[] } | null = null;

  /** For `size` examples. */
  constructor(size: number, { batchSize, shuffle = false, seed = 0, lengths }: BatchSamplerOptions) {
    const counts = { size, batchSize };
    for (const [name, n] of Object.entries(counts)) {
      if (!(Number.isSafeInteger(n) && n > 0))
        throw new RangeError(`BatchSampler: ${name} must be a positive integer, got ${n}`);
    }
    if (lengths && lengths.length !== size)
      throw new RangeError(`BatchSampler: lengths must hold one of each example (${size}), got ${lengths.length}`);
    this.size = size;
    this.batchSize = batchSize;
    this.#shuffle = shuffle;
    this.#seed = seed;
    this.#lengths = lengths ?? null;
  }

  /** Batches of an epoch. */
  get length(): number {
    return Math.ceil(this.size / this.batchSize);
  }

  /** The examples of step `step`, counted from the first epoch on. */
  at(step: number): readonly number[] {
    return this.epoch(Math.floor(step / this.length))[step % this.length]!;
  }

  /** The batches of an epoch, each a list of examples. */
  epoch(epoch: number): readonly (readonly number[])[] {
    if (this.#drawn?.epoch !== epoch) this.#drawn = { epoch, batches: this.#draw(epoch) };
    return this.#drawn.batches;
  }

  #draw(epoch: number): number[][] {
    const { size, batchSize } = this;
    const lengths = this.#lengths;
    const random = new Random(this.#seed, epoch * size * (lengths ? 2 : 1));
    let order = this.#shuffle ? random.permutation(size) : Array.from({ length: size }, (_, i) => i);
    if (lengths) {
      order = cut(order, SORTED_BATCHES * batchSize).flatMap((part) =>
        part.toSorted((a, b) => lengths[b]! - lengths[a]!),
      );
    }
    const batches = cut(order, batchSize);
    return lengths && this.#shuffle ? random.permutation(batches.length).map((i) => batches[i]!) : batches;
  }
}

const cut = <T>(list: readonly T[], size: number): T[][] =>
  Array.from({ length: Math.ceil(list.length / size) }, (_, i) => list.slice(i * size, (i + 1) * size));
