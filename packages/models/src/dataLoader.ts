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
    const ahead = new Ahead((step) => this.#batch(step));
    try {
      for (let step = from; step < to; step++) {
        const batch = ahead.at(step);
        if (step + 1 < to) ahead.prepare(step + 1);
        yield batch;
      }
    } finally {
      ahead.drop();
    }
  }

  #batch(step: number): Batch {
    return this.collate(this.batchSampler.at(step).map((i) => this.dataset.at(i)!));
  }
}

/** Values of steps, of which one is made ahead: when the event loop is free, or when it is asked for, if that is sooner. */
class Ahead<T> {
  readonly #make: (step: number) => T;
  #wanted: number | null = null;
  #made: { readonly step: number; readonly value: T } | null = null;
  /** A task is on its way; more would pile up where nobody lets the event loop go on. */
  #underway = false;

  constructor(make: (step: number) => T) {
    this.#make = make;
  }

  prepare(step: number): void {
    this.#wanted = step;
    if (this.#underway) return;
    this.#underway = true;
    void nextTask().then(() => {
      this.#underway = false;
      const wanted = this.#wanted;
      if (wanted === null) return;
      try {
        this.#made = { step: wanted, value: this.at(wanted) };
      } catch {
        // it fails again, in the hands of who asks for it
      }
    });
  }
  at(step: number): T {
    const value = this.#made?.step === step ? this.#made.value : this.#make(step);
    this.drop();
    return value;
  }
  drop(): void {
    this.#wanted = this.#made = null;
  }
}
