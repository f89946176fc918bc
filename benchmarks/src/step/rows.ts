import type { Case } from "../case.ts";
import { Contender } from "../contender.ts";
import { runtimeOf } from "../machine.ts";
import type { Options } from "../options.ts";
import type { Report } from "../report.ts";
import { ours, peft } from "./contenders.ts";
import { type Planned, caseOf, planned } from "./plan.ts";
import { CASES } from "./trainingData.ts";

/** Long enough for prefixes, short enough for so many steps of a large model; longer where it is asked for. */
const LONGEST = 128;
const LARGEST_BATCH = 2;

/** The largest difference of the rows after some steps, ours from PEFT's and with caches from without. */
export async function benchRows(options: Options, report: Report): Promise<void> {
  const cases = options.cases.length > 0 ? options.cases : Object.keys(CASES);
  const shapes = options.shapes.length > 0 ? options.shapes : ["tiny"];
  for (const plan of planned({ ...options, shapes, cases })) await compareRows(report, plan, options);
}

async function compareRows(report: Report, plan: Planned, options: Options): Promise<void> {
  const short = {
    ...plan,
    ...(options.lengths.length > 0 ? {} : { length: Math.min(plan.length, LONGEST) }),
    ...(options.batches.length > 0 ? {} : { batch: Math.min(plan.batch, LARGEST_BATCH) }),
  };
  const c = caseOf(short);
  const training = { ...c.training!, rowsAfter: options.steps };
  const asked: Case = { ...c, training, kernel: `rows after ${options.steps} steps, ${plan.shape} ${plan.name}` };
  if (report.has(asked.kernel, asked.shape, runtimeOf(options.node))) return;
  report.note(`\n${asked.kernel}: largest difference  [max |Δ|]`);

  const threads = Math.max(...options.threads);
  const found = new Map<string, { readonly rows: readonly number[]; readonly runtime: string }>();
  for (const spec of [
    ours("neolog", threads, options),
    ours("neolog without reuse", threads, options),
    peft(threads),
  ]) {
    const contender = await Contender.start(spec);
    if (!(contender instanceof Contender)) {
      report.note(`skipped ${spec.name}: ${contender.skipped}`);
      continue;
    }
    const rows = await contender.prepare(asked);
    contender.stop();
    if (rows) found.set(spec.name, { rows, runtime: contender.hello.runtime });
  }
  for (const [name, other] of PAIRS) {
    const [a, b] = [found.get(name), found.get(other)];
    if (!a || !b) continue;
    const who = { contender: `${name} against ${other}`, threads, runtime: `${a.runtime}; ${b.runtime}` };
    report.addValue(asked.kernel, asked.shape, who, "max |Δ|", largestDifference(a.rows, b.rows));
  }
}

const PAIRS = [
  ["neolog", "PEFT on torch"],
  ["neolog without reuse", "PEFT on torch"],
  ["neolog", "neolog without reuse"],
] as const;

/** Infinite where there are not as many. */
export function largestDifference(a: readonly number[], b: readonly number[]): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY;
  return a.reduce((most, x, i) => Math.max(most, Math.abs(x - b[i]!)), 0);
}
