import { Contender } from "../contender.ts";
import { runtimeOf } from "../machine.ts";
import type { Options } from "../options.ts";
import type { Report } from "../report.ts";
import { addMemory } from "../step/bench.ts";
import { ours, peft } from "../step/contenders.ts";
import { caseOf, planned } from "../step/plan.ts";

const SHAPES = ["gpt2", "qwen2.5-0.5b"];
const LENGTHS = [128, 512];
const BATCHES = [4];

/** The most resident memory of an epoch of steps, ours and PEFT's: one after the other, so that a machine has room for each. */
export async function benchResident(options: Options, report: Report): Promise<void> {
  const or = <T>(asked: readonly T[], usual: readonly T[]): readonly T[] => (asked.length > 0 ? asked : usual);
  const sizes = options.quick
    ? {}
    : {
        shapes: or(options.shapes, SHAPES),
        lengths: or(options.lengths, LENGTHS),
        batches: or(options.batches, BATCHES),
      };
  const threads = Math.max(...options.threads);
  for (const plan of planned({ ...options, cases: or(options.cases, ["a"]), ...sizes })) {
    const c = caseOf(plan);
    if (report.has(`${c.kernel} resident`, c.shape, runtimeOf(options.node))) continue;
    const results: { readonly contender: Contender; readonly maxRss: number }[] = [];
    for (const spec of [ours("neolog", threads, options), peft(threads)]) {
      const contender = await Contender.start(spec);
      if (!(contender instanceof Contender)) {
        report.note(`skipped ${spec.name}: ${contender.skipped}`);
        continue;
      }
      try {
        await contender.prepare(c);
        const { maxRss } = await contender.sample(1);
        results.push({ contender, maxRss });
      } finally {
        contender.stop();
      }
    }
    addMemory(report, c, results);
  }
}
