import { type Case, matches, nameOf } from "../case.ts";
import { ours, peers, startAll } from "../contenders.ts";
import { checkpointFolder } from "../step/checkpoint.ts";
import { nameOfFigure } from "../figure.ts";
import { runtimeOf } from "../machine.ts";
import type { Options } from "../options.ts";
import { type Result, race } from "../race.ts";
import type { Report } from "../report.ts";
import { Roofs } from "../roof.ts";
import { casesLeft } from "./cases.ts";

/** Rows of GPT-2 small. */
const QUICK: readonly string[] = ["128×768"];

/** Every kernel case that the filter leaves, by ours and by the peers that are installed. */
export async function benchKernels(options: Options, report: Report): Promise<void> {
  const filter = options.quick && options.filter.length === 0 ? QUICK : options.filter;
  const loads = matches("fromPretrained", filter);
  const { dir, bytes } = loads ? checkpointFolder("gpt2") : { dir: "", bytes: 0 };
  const cases = casesLeft(filter, dir, bytes);
  const runtime = runtimeOf(options.node);
  const roofs = await Roofs.measure(options);
  for (const line of roofs.lines()) report.note(line);
  const contenders = await startAll([...ours(options), ...peers(options)], options);
  try {
    for (const c of cases) {
      if (report.has(nameOfFigure(c), c.shape, runtime)) continue;
      const results = await race(c, contenders, options);
      if (c.kernel === "forkJoin" || c.kernel === "wakeUp") addForkJoin(report, c, results);
      else report.add(c, results, roofs);
    }
  } finally {
    for (const contender of contenders) contender.stop();
  }
  report.note("\nthe roof again, after all cases:");
  for (const line of (await Roofs.measure(options)).lines()) report.note(line);
}

/** What sharing costs: the time on two threads less half of that on one. */
function addForkJoin(report: Report, c: Case, results: readonly Result[]): void {
  const alone = results.find(({ contender: { spec } }) => spec.name === "neolog" && spec.threads === 1);
  const shared = results.find(({ contender: { spec } }) => spec.name === "neolog" && spec.threads === 2);
  if (!alone || !shared) return;
  const cost = shared.ns.map((ns, i) => ns - alone.ns[i]! / 2);
  const {
    contender: { spec, hello },
    disturbance,
  } = shared;
  report.note(`\n${nameOf(c)}  [${c.unit}]`);
  report.write(
    report.figure(c, cost, { contender: spec.name, threads: 2, roof: null, runtime: hello.runtime, disturbance }),
    null,
  );
}
