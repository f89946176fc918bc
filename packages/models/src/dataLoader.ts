import type { BatchSampler } from "./batchSampler.ts";
import { nextTask } from "./nextTask.ts";

/** Examples by number: an array is one. */
export interface Dataset<Row> {
  readonly length: number;
  at(index: number): Row | undefined;
}

export interface DataLoaderOptions<Row, Batch> {
  /** Which examples each batch holds. */
  readonly batchSampler: BatchSampler;
  /** Examples → what the model takes, such as `padSequences` or `packSequences`. */
  readonly collate: (rows: Row[]) => Batch;
}

/**
 * Batches of a data set, as PyTorch's: while a step waits for its device, the batch of the next one is made. Throws RangeError where
 * the sampler is for another number of examples.
 */
export class DataLoader<Row, Batch> {
  readonly dataset: Dataset<Row>;
  readonly batchSampler: BatchSampler;
  readonly collate: (rows: Row[]) => Batch;

  constructor(dataset: Dataset<Row>, { batchSampler, collate }: DataLoaderOptions<Row, Batch>) {
    if (batchSampler.size !== dataset.length) {
      const { size } = batchSampler;
      throw new RangeError(
        `DataLoader: batchSampler must be for the ${dataset.length} examples of dataset, got one for ${size}`,
      );
    }
    this.dataset = dataset;
    this.batchSampler = batchSampler;
    this.collate = collate;
  }

  /** Batches of an epoch. */
  get length(): number {
    return this.batchSampler.length;
  }

  /** The batches of one epoch, from its batch `from` on. */
  epoch(epoch: number, from = 0): AsyncGenerator<Batch, void> {
    return this.#between(epoch * this.length + from, (epoch + 1) * this.length);
  }

  /** Batches of step `from` and all that follow, epoch after epoch, without end. */
  steps(from = 0): AsyncGenerator<Batch, void> {
    return this.#between(from, Infinity);
  }

  async *#between(from: number, to: number): AsyncGenerator<Batch, void> {
    let next = new Ahead(() => this.#batch(from));
    try {
      for (let step = from; step < to; step++) {
        const batch = next.value();
        next = new Ahead(() => this.#batch(step + 1));
        if (step + 1 < to) next.start();
        yield batch;
      }
    } finally {
      next.drop();
    }
  }

  #batch(step: number): Batch {
    return this.collate(this.batchSampler.at(step).map((i) => this.dataset.at(i)!));
  }
}

/** A value made when the event loop is free, or when it is asked for, if that is sooner. */
class Ahead<T> {
  readonly #make: () => T;
  #made: { readonly value: T } | null = null;
  #dropped = false;

  constructor(make: () => T) {
    this.#make = make;
  }

  start(): void {
    void nextTask().then(() => {
      if (this.#dropped || this.#made) return;
      try {
        this.value();
      } catch {
        // it fails again, in the hands of who asks for it
      }
    });
  }
  value(): T {
    this.#made ??= { value: this.#make() };
    return this.#made.value;
  }
  drop(): void {
    this.#dropped = true;
  }
}
