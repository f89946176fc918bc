/** One figure: what was timed, the median and the spread of its samples. */
export interface Figure {
  readonly name: string;
  readonly unit: string;
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

/**
 * Times the contenders in turn, A B A B …, so that a drift of the machine's speed hits all of them.
 * Each sample is milliseconds of one call; the first `warmup` rounds are not counted.
 */
export function interleave(
  contenders: Readonly<Record<string, () => void>>,
  { rounds = 9, warmup = 2 }: { rounds?: number; warmup?: number } = {},
): Record<string, number[]> {
  const samples: Record<string, number[]> = Object.fromEntries(Object.keys(contenders).map((name) => [name, []]));
  for (let round = -warmup; round < rounds; round++) {
    for (const [name, run] of Object.entries(contenders)) {
      const start = performance.now();
      run();
      const elapsed = performance.now() - start;
      if (round >= 0) samples[name]!.push(elapsed);
    }
  }
  return samples;
}

/** Median, minimum and maximum of the samples, each passed through `convert`. */
export function figure(name: string, unit: string, samples: readonly number[], convert = (x: number) => x): Figure {
  const sorted = samples.map(convert).toSorted((a, b) => a - b);
  return { name, unit, median: sorted[sorted.length >> 1]!, min: sorted[0]!, max: sorted.at(-1)! };
}

/** One line of JSON for a program, one line of text for a person. */
export function report({ name, unit, median, min, max }: Figure): void {
  console.log(JSON.stringify({ name, unit, median, min, max }));
  console.error(`${name.padEnd(56)} ${format(median)} ${unit}  (${format(min)} to ${format(max)})`);
}

const format = (x: number): string => x.toPrecision(3).padStart(8);
