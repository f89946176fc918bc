import { type Case, nameOf } from "../case.ts";
import { startAll } from "../contenders.ts";
import { runtimeOf } from "../machine.ts";
import type { Options } from "../options.ts";
import { type Result, race } from "../race.ts";
import type { Report } from "../report.ts";
import { Roofs } from "../roof.ts";
import { contendersFor } from "./contenders.ts";
import { type Planned, caseOf, planned } from "./plan.ts";
import { CASES } from "./trainingData.ts";

/**
 * Milliseconds of a training step of token rows and the most memory that it holds, ours and others', the same batches for all. Every
 * case has processes of its own, so that the memory is its own too.
 */
export async function benchStep(
  options: Options,
  report: Report,
  caseFor: (plan: Planned) => Case = caseOf,
): Promise<void> {
  const roofs = await Roofs.measure(options);
  const runtime = runtimeOf(options.node);
  for (const plan of planned(options)) {
    const c = caseFor(plan);
    if (report.has(`${c.kernel} resident`, c.shape, runtime) && report.has(c.kernel, c.shape, runtime)) continue;
    report.note(`\n${CASES[plan.name]}; batch × length × tokens that train`);
    const contenders = await startAll(contendersFor(plan, options), options);
    try {
      const results = await race(c, contenders, options);
      report.add(c, results, roofs);
      addMemory(report, c, results);
    } finally {
      for (const contender of contenders) contender.stop();
    }
  }
}

export function addMemory(report: Report, c: Case, results: readonly Pick<Result, "contender" | "maxRss">[]): void {
  report.note(`\n${nameOf(c)}, most resident memory  [MiB]`);
  for (const { contender, maxRss } of results) {
    const { spec, hello } = contender;
    const who = { contender: spec.name, threads: spec.threads, runtime: hello.runtime };
    report.addBytes(`${c.kernel} resident`, c.shape, who, maxRss);
  }
}
