import { fileURLToPath } from "node:url";
import { type Case, nameOf } from "../case.ts";
import type { ContenderSpec } from "../contender.ts";
import { python, startAll } from "../contenders.ts";
import { type Options, UsageError } from "../options.ts";
import { type Result, race } from "../race.ts";
import { Report } from "../report.ts";
import { Roofs } from "../roof.ts";
import { checkpointFolder } from "./checkpoint.ts";
import { SHAPES, type Shape, type ShapeName } from "./shapes.ts";

/** Milliseconds of a training step and resident memory, of token rows by ours and by PEFT on torch. */
export async function benchStep(options: Options): Promise<void> {
  const report = new Report(options);
  const shapes = options.shape === "" ? (["tiny", "gpt2"] as const) : [known(options.shape)];
  const roofs = await Roofs.measure(options);
  for (const shape of shapes) {
    const contenders = await startAll(contendersFor(shape, options), options);
    try {
      for (const c of casesOf(shape)) {
        const results = await race(c, contenders, options);
        report.add(c, results, roofs);
        addMemory(report, c, results);
      }
    } finally {
      for (const contender of contenders) contender.stop();
    }
  }
}

function known(shape: string): ShapeName {
  if (!Object.hasOwn(SHAPES, shape))
    throw new UsageError(`--shape must be one of ${Object.keys(SHAPES).join(", ")}, got ${shape}`);
  return shape as ShapeName;
}

function casesOf(shape: ShapeName): Case[] {
  const { batch, length, trained }: Shape = SHAPES[shape];
  const common = { shape: [batch, length, trained], amount: 0, roof: "none", unit: "ms" } as const;
  if (shape === "2.6b") return [{ kernel: "step rows 2.6b", ...common }];
  const { dir } = checkpointFolder(shape);
  const kernels = shape === "tiny" ? ["step rows tiny", "step all tiny"] : ["step rows gpt2"];
  return kernels.map((kernel) => ({ kernel, dir, ...common }));
}

/** Plain loops for a small model alone; PEFT where the same checkpoint can be read. The largest model at the most threads only. */
function contendersFor(shape: ShapeName, { node, threads }: Options): ContenderSpec[] {
  const script = fileURLToPath(new URL("./ours.js", import.meta.url));
  const ours = (name: string, count: number, ...args: string[]): ContenderSpec => ({
    name,
    threads: count,
    command: node,
    args: [script, ...args],
  });
  const counts = shape === "2.6b" ? [Math.max(...threads)] : threads;
  return [
    ...(shape === "tiny" ? [ours("plain loops", 1, "cpu")] : []),
    ...counts.map((count) => ours("neolog", count, "wasm", String(count), "flags")),
    ...(shape === "gpt2"
      ? counts.map((count) => ({ name: "PEFT on torch", threads: count, ...python("peft_step.py", count) }))
      : []),
  ];
}

function addMemory(report: Report, c: Case, results: readonly Result[]): void {
  report.note(`\n${nameOf(c)}, most resident memory  [MiB]`);
  for (const { contender, maxRss } of results) {
    const { spec, hello } = contender;
    const who = { contender: spec.name, threads: spec.threads, runtime: hello.runtime };
    report.addBytes(`${c.kernel} resident`, c.shape, who, maxRss);
  }
}
