import { fileURLToPath } from "node:url";
import type { Case } from "../case.ts";
import type { ContenderSpec } from "../contender.ts";
import { python, startAll } from "../contenders.ts";
import { runtimeOf } from "../machine.ts";
import type { Options } from "../options.ts";
import { race } from "../race.ts";
import type { Report } from "../report.ts";
import { Roofs } from "../roof.ts";
import { checkpointFolder } from "../step/checkpoint.ts";
import { SHAPES } from "../step/shapes.ts";

/** Tokens that a call makes of each row, after one token of prompt: every one of them reads all weights once. */
const NEW_TOKENS = 24;

/** Tokens per second of GPT-2 small, alone and four rows at once, against the memory that a step has to read. */
export async function benchGenerate(options: Options, report: Report): Promise<void> {
  const { dir, bytes } = checkpointFolder("gpt2");
  const runtime = runtimeOf(options.node);
  const roofs = await Roofs.measure(options);
  const contenders = await startAll(contendersFor(options), options);
  try {
    for (const rows of [1, 4]) {
      const c = caseOf(rows, dir, bytes);
      if (report.has(c.kernel, c.shape, runtime)) continue;
      report.add(c, await race(c, contenders, options), roofs);
    }
  } finally {
    for (const contender of contenders) contender.stop();
  }
}

/** `amount`: what a call reads, the weights without the table of positions for each token. */
function caseOf(rows: number, dir: string, bytes: number): Case {
  const { n_positions, n_embd } = SHAPES.gpt2.config;
  const amount = NEW_TOKENS * (bytes - 4 * n_positions * n_embd);
  const shape = [rows, 1, NEW_TOKENS];
  return {
    kernel: "generate gpt2",
    shape,
    dir,
    amount,
    roof: "readMemory",
    unit: "tokens/s",
    elements: rows * NEW_TOKENS,
  };
}

function contendersFor({ node, threads }: Options): ContenderSpec[] {
  const script = fileURLToPath(new URL("./ours.js", import.meta.url));
  return [
    ...threads.map((count) => ({
      name: "neolog",
      threads: count,
      command: node,
      args: [script, "wasm", String(count), "flags"],
    })),
    ...threads.map((count) => ({ name: "transformers on torch", threads: count, ...python("generate.py", count) })),
  ];
}
