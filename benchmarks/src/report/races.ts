import type { Figure } from "../figure.ts";

/** Figures of one case that were taken by turns: lines that follow each other. */
export interface Race {
  readonly name: string;
  readonly shape: readonly number[];
  readonly unit: string;
  readonly figures: readonly Figure[];
}

/** A contender that comes again begins another race, under another Node perhaps. */
export function racesOf(figures: readonly Figure[]): Race[] {
  const races: (Race & { figures: Figure[] })[] = [];
  for (const figure of figures) {
    const last = races.at(-1);
    const same =
      last &&
      last.name === figure.name &&
      last.unit === figure.unit &&
      last.shape.join() === figure.shape.join() &&
      !last.figures.some((other) => other.contender === figure.contender && other.threads === figure.threads);
    if (same) last.figures.push(figure);
    else races.push({ name: figure.name, shape: figure.shape, unit: figure.unit, figures: [figure] });
  }
  return races;
}
