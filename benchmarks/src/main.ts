import { compare } from "./compare.ts";
import { benchGenerate } from "./generate/bench.ts";
import { benchKernels } from "./kernels/bench.ts";
import { benchLoad } from "./load/bench.ts";
import { benchMemory } from "./memory/rowOnly.ts";
import { type Options, USAGE, UsageError, parseOptions } from "./options.ts";
import { render } from "./report/markdown.ts";
import { writeReport } from "./report/write.ts";
import { benchStep } from "./step/bench.ts";
import { benchPeers } from "./step/peers.ts";
import { benchRows } from "./step/rows.ts";
import { benchScaling } from "./step/scaling.ts";

const BENCHES: { readonly [name: string]: (options: Options) => void | Promise<void> } = {
  kernels: benchKernels,
  step: benchStep,
  rows: benchRows,
  peers: benchPeers,
  scaling: benchScaling,
  generate: benchGenerate,
  memory: benchMemory,
};
const COMMANDS: typeof BENCHES = { ...BENCHES, load: benchLoad, compare, render, report: writeReport };

try {
  const { bench, options } = parseOptions(process.argv.slice(2));
  if (bench === "help") console.log(USAGE);
  else if (bench === "all") for (const run of Object.values(BENCHES)) await run(options);
  else if (Object.hasOwn(COMMANDS, bench)) await COMMANDS[bench]!(options);
  else throw new UsageError(`name must be one of ${Object.keys(COMMANDS).join(", ")}, got "${bench}"`);
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  console.error(`bench: ${error.message}\n\n${USAGE}`);
  process.exitCode = 2;
}
