/** What a rate is compared with. */
export interface Roof {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  /** False where no compiler is at hand and the value is one stored from another machine. */
  readonly measured: boolean;
}

/** One figure of the suite: a line of JSON. */
export interface Figure {
  readonly name: string;
  readonly shape: readonly number[];
  readonly contender: string;
  readonly threads: number;
  readonly unit: string;
  readonly median: number;
  readonly min: number;
  readonly p10: number;
  readonly p90: number;
  /** Of the roof; null where none applies. */
  readonly percent: number | null;
  readonly roof: Roof | null;
  /** The share of the machine that other programs took meanwhile. */
  readonly disturbance: number;
  readonly machine: string;
  /** Version of Node, or of Python. */
  readonly runtime: string;
  readonly commit: string;
}

/** The name of a case's figure. */
export const nameOfFigure = ({ kernel, dtype }: { readonly kernel: string; readonly dtype?: string }): string =>
  dtype ? `${kernel} ${dtype}` : kernel;

export type Spread = Pick<Figure, "median" | "min" | "p10" | "p90">;

/** Median, minimum and the tenth and ninetieth percentile, by linear interpolation. */
export function spreadOf(samples: readonly number[]): Spread {
  const sorted = samples.toSorted((a, b) => a - b);
  return { median: quantile(sorted, 0.5), min: sorted[0]!, p10: quantile(sorted, 0.1), p90: quantile(sorted, 0.9) };
}

function quantile(sorted: readonly number[], q: number): number {
  const at = q * (sorted.length - 1);
  const below = Math.floor(at);
  const next = sorted[Math.min(below + 1, sorted.length - 1)]!;
  return sorted[below]! + (at - below) * (next - sorted[below]!);
}

/** The lines that are figures. */
export const linesOf = (text: string): Figure[] =>
  text
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line) as Figure);
