import { type Case, nameOf } from "./case.ts";
import type { Contender, Sample } from "./contender.ts";
import { spreadOf } from "./figure.ts";
import { QUIET, quiet } from "./machine.ts";
import type { Options } from "./options.ts";

/** What one contender needed for a case. */
export interface Result {
  readonly contender: Contender;
  /** Nanoseconds of a call, one sample a round. */
  readonly ns: readonly number[];
  /** Bytes that its process has held at most. */
  readonly maxRss: number;
  /** The share of the machine that other programs took just before and after the samples: the median. */
  readonly disturbance: number;
}

/** A contender whose call takes seconds is done after a few. */
const ENOUGH_MS = 4000;
const FEWEST_ROUNDS = 3;
/** So long a call is warm after the check, which is a part of it: the first one counts. */
const LONG_NS = 10e9;
/** So many times slower than the first contender, one such call is enough. */
const FAR_BEHIND = 10;
/** Contenders sum in different orders. */
const TOLERANCE = 2e-3;

/**
 * All contenders that have the case, one sample each in turn, A B A B …, so that a drift of the machine hits all of them alike. The
 * first round warms up, but for calls of many seconds. Who fails or disagrees with the first contender's result is named on stderr and left out.
 */
export async function race(c: Case, contenders: readonly Contender[], options: Options): Promise<Result[]> {
  const runners = await prepareAll(c, contenders);
  const samples = new Map(runners.map((contender) => [contender, [] as number[]]));
  const peaks = new Map<Contender, number>();
  const disturbances: number[] = [];
  const failed = new Set<Contender>();
  for (let round = -1; round < options.rounds; round++) {
    for (const contender of runners) {
      const taken = samples.get(contender)!;
      const spent = taken.reduce((sum, ns) => sum + ns / 1e6, 0);
      const [own = 0, first = own] = [taken[0], samples.get(runners[0]!)![0]];
      const enough =
        taken.length >= options.rounds ||
        (taken.length >= FEWEST_ROUNDS && spent > ENOUGH_MS) ||
        (own > LONG_NS && own > FAR_BEHIND * first);
      if (failed.has(contender) || enough) continue;
      try {
        const { ns, maxRss, disturbance } = await sampleOf(contender, options);
        if (round >= 0 || ns > LONG_NS) taken.push(ns);
        peaks.set(contender, maxRss);
        disturbances.push(disturbance);
      } catch (error) {
        leftOut(c, contender, error);
        failed.add(contender);
      }
    }
  }
  const finished = runners.filter((contender) => !failed.has(contender));
  for (const contender of finished) await contender.release();
  const disturbance = spreadOf(disturbances).median;
  return finished.map((contender) => ({
    contender,
    ns: samples.get(contender)!,
    maxRss: peaks.get(contender)!,
    disturbance,
  }));
}

/** A sample with a quiet machine before and after it, where one can be had by waiting and trying again. */
async function sampleOf(
  contender: Contender,
  { sample, wait }: Options,
): Promise<Sample & { readonly disturbance: number }> {
  const end = performance.now() + wait * 1000;
  for (;;) {
    const left = Math.max(0, (end - performance.now()) / 1000);
    const before = await quiet(left);
    const taken = await contender.sample(sample);
    const disturbance = Math.max(before, await quiet(0));
    if (disturbance <= QUIET || performance.now() > end) return { ...taken, disturbance };
  }
}

async function prepareAll(c: Case, contenders: readonly Contender[]): Promise<Contender[]> {
  const runners: Contender[] = [];
  let expected: readonly number[] | null = null;
  for (const contender of contenders) {
    try {
      const found = await contender.prepare(c);
      if (!found) continue;
      expected ??= found;
      const agrees = found.every((x, i) => Math.abs(x - expected![i]!) <= TOLERANCE * (1 + Math.abs(expected![i]!)));
      if (agrees) runners.push(contender);
      else throw new Error(`results must agree, got ${JSON.stringify(found)} for ${JSON.stringify(expected)}`);
    } catch (error) {
      leftOut(c, contender, error);
      await contender.release().catch(() => {});
    }
  }
  return runners;
}

const leftOut = (c: Case, { spec }: Contender, error: unknown): void =>
  console.error(`${nameOf(c)}: ${spec.name} left out: ${(error as Error).message.split("\n")[0]}`);
