/** 32 well-mixed bits for a counter: two rounds of the finalizer of MurmurHash3 over seed and counter. */
export function randomBits(seed: number, counter: number): number {
  let h = (Math.imul(counter, 0x9e3779b9) ^ Math.imul(seed | 0, 0x85ebca6b)) + Math.floor(seed / 2 ** 32);
  for (let round = 0; round < 2; round++) {
    h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
    h = (h ^ (h >>> 16)) + 0x6d2b79f5;
  }
  return h >>> 0;
}

/** Uniform on [0, 1) with 24 bits, so that float32 holds it exactly. */
export const uniformAt = (seed: number, i: number): number => (randomBits(seed, i) >>> 8) / 2 ** 24;

/** Standard normal by Box and Muller 1958, from the counters 2i and 2i + 1. */
export function normalAt(seed: number, i: number): number {
  const radius = Math.sqrt(-2 * Math.log(1 - uniformAt(seed, 2 * i)));
  return radius * Math.cos(2 * Math.PI * uniformAt(seed, 2 * i + 1));
}

/** A stream of random numbers with a state of one counter, so that it can be saved and resumed. */
export class Random {
  readonly seed: number;
  counter: number;

  constructor(seed: number, counter = 0) {
    this.seed = seed;
    this.counter = counter;
  }
  /** Uniform on [0, 1). */
  next(): number {
    return uniformAt(this.seed, this.counter++);
  }
  /** Uniform integer in [0, n). */
  below(n: number): number {
    return Math.floor(this.next() * n);
  }
  /** The numbers 0 … n − 1 in random order; Fisher and Yates. */
  permutation(n: number): number[] {
    const order = Array.from({ length: n }, (_, i) => i);
    for (let i = n - 1; i > 0; i--) {
      const j = this.below(i + 1);
      [order[i], order[j]] = [order[j]!, order[i]!];
    }
    return order;
  }
}
