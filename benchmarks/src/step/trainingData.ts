/** Where the trained tokens of a data set are. */
export const CASES = {
  a: "trained tokens from the first position on",
  b: "the first trained token at half of the sequence on average",
  c: "trained tokens in half of the samples",
} as const;
export type CaseName = keyof typeof CASES;

/** What trains: every contender gets the same. */
export interface TrainingData {
  /** Of one epoch, each [B, T]. */
  readonly batches: readonly (readonly (readonly number[])[])[];
  readonly token_indices: readonly number[];
}

export interface DataShape {
  readonly batch: number;
  readonly length: number;
  /** Token rows that train. */
  readonly tokens: number;
  /** Position of the first trained token in all samples; where the case has it, when absent. */
  readonly first?: number;
}

/** An epoch has as many samples, or one batch. Few, because the largest models take a minute for a step. */
const SAMPLES = 4;
/** From the first trained token on, one of so many positions holds one. */
const EVERY = 16;

/** An epoch of full sequences over a vocabulary; any two samples differ from the first position on. Throws RangeError. */
export function trainingData(vocab_size: number, name: CaseName, shape: DataShape): TrainingData {
  const { batch, length, tokens } = shape;
  if (tokens * 2 > vocab_size)
    throw new RangeError(`trainingData: ${tokens} tokens must be at most half of ${vocab_size}`);
  const token_indices = Array.from({ length: tokens }, (_, i) => Math.floor(((i + 0.5) * vocab_size) / tokens));
  const trained = new Set(token_indices);
  const samples = Math.max(SAMPLES, batch);
  const sample = (i: number): number[] => {
    const first = shape.first ?? firstTrained(name, i, samples, length);
    return Array.from({ length }, (_, t) => {
      const after = t - first;
      if (after >= 0 && after % EVERY === 0) return token_indices[(i + after / EVERY) % tokens]!;
      const id = ((i * length + t) * 7919 + 13) % vocab_size;
      return trained.has(id) ? (id + 1) % vocab_size : id;
    });
  };
  const batches = Array.from({ length: Math.floor(samples / batch) }, (_, b) =>
    Array.from({ length: batch }, (_, row) => sample(b * batch + row)),
  );
  return { batches, token_indices };
}

/** Position of sample i's first trained token; `length` where it has none. */
function firstTrained(name: CaseName, i: number, samples: number, length: number): number {
  if (name === "b") return Math.floor(length * (0.25 + (0.5 * (i + 0.5)) / samples));
  return name === "c" && i % 2 === 1 ? length : 0;
}
