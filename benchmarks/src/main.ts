import { compare } from "./compare.ts";
import { benchGenerate } from "./generate/bench.ts";
import { benchKernels } from "./kernels/bench.ts";
import { benchLoad } from "./load/bench.ts";
import { benchMemory } from "./memory/rowOnly.ts";
import { type Options, USAGE, UsageError, parseOptions } from "./options.ts";
import { Report } from "./report.ts";
import { judge, judgedLine } from "./report/acceptance.ts";
import { render } from "./report/markdown.ts";
import { writeReport } from "./report/write.ts";
import { benchStep } from "./step/bench.ts";
import { benchPeers } from "./step/peers.ts";
import { benchRows } from "./step/rows.ts";
import { benchScaling } from "./step/scaling.ts";

type Bench = (options: Options, report: Report) => void | Promise<void>;

const BENCHES: { readonly [name: string]: Bench } = {
  kernels: benchKernels,
  step: benchStep,
  rows: benchRows,
  peers: benchPeers,
  scaling: benchScaling,
  generate: benchGenerate,
  memory: benchMemory,
  load: benchLoad,
};
const COMMANDS: typeof BENCHES = { ...BENCHES, compare, render, report: writeReport };

/** The parts of everything: names and what follows them on a command line. */
const ALL: readonly (readonly [bench: string, filter?: string])[] = [
  ["kernels"],
  ["step"],
  ["rows"],
  ["peers"],
  ["scaling"],
  ["generate"],
  ["memory"],
  ["memory", "step"],
  ["memory", "headline"],
  ["load"],
  ["memory", "steps"],
];

/** A part that fails is named, and the others go on: nobody watches a run of hours. */
async function benchAll(options: Options, report: Report): Promise<void> {
  const failed: string[] = [];
  for (const [name, filter = ""] of ALL) {
    report.note(`\n== ${name} ${filter}`);
    try {
      await BENCHES[name]!({ ...options, all: true, filter: filter === "" ? [] : [filter] }, report);
    } catch (error) {
      failed.push(`${name} ${filter}: ${(error as Error).message}`);
      report.note(`FAILED: ${(error as Error).stack}`);
    }
  }
  if (failed.length === 0) return;
  report.note(`\nfailed: ${failed.join("; ")}`);
  process.exitCode = 1;
}

/** The bars that the figures tell something of; the exit code is 1 where one is missed. Quick figures are none. */
function judged(report: Report, { quick }: Options): void {
  if (quick) return report.note("\nquick: every part ran; no figure of it counts, no bar was judged");
  for (const each of judge(report.figures)) {
    report.note(judgedLine(each));
    if (!each.met) process.exitCode = 1;
  }
}

try {
  const { bench, options } = parseOptions(process.argv.slice(2));
  const run = bench === "all" ? benchAll : Object.hasOwn(COMMANDS, bench) ? COMMANDS[bench]! : null;
  if (bench === "help") console.log(USAGE);
  else if (!run) throw new UsageError(`name must be one of ${Object.keys(COMMANDS).join(", ")}, got "${bench}"`);
  else {
    const report = new Report(options);
    await run(options, report);
    judged(report, options);
  }
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  console.error(`bench: ${error.message}\n\n${USAGE}`);
  process.exitCode = 2;
}
