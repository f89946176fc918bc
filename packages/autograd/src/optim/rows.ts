import type { Tensor } from "@neolog/tensor";

/** Parameter → a flag for each of its rows: not 0 where the row takes part in a step. */
export type TouchedRows = ReadonlyMap<Tensor, ArrayLike<number>>;

/** Neighbouring rows that have taken the same number of steps. */
export interface RowRun {
  readonly start: number;
  readonly end: number;
  readonly step: number;
}

/** The touched rows as runs of neighbours with equal counts, so that each run is one update. */
export function runsOf(mask: ArrayLike<number>, steps: Int32Array): RowRun[] {
  const runs: RowRun[] = [];
  for (let row = 0; row < steps.length; row++) {
    if (!mask[row]) continue;
    const last = runs.at(-1);
    const step = steps[row]!;
    if (last?.end === row && last.step === step) runs[runs.length - 1] = { ...last, end: row + 1 };
    else runs.push({ start: row, end: row + 1, step });
  }
  return runs;
}
