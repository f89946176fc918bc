import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { freemem } from "node:os";
import { fileURLToPath } from "node:url";
import { runtimeOf } from "../machine.ts";
import { type Options, UsageError } from "../options.ts";
import type { Report } from "../report.ts";
import { SHAPES, type Shape, type ShapeName } from "../step/shapes.ts";

/** What trains. */
const WHATS = {
  forward: "a: forward only",
  rows: "b: Trainable Tokens",
  lora: "c: LoRA of rank 8 on the table",
  full: "d: the whole table, in float32",
} as const;
export type HeadlineWhat = keyof typeof WHATS;

/** What two steps took. */
export interface Taken {
  readonly runtime: string;
  /** Bytes of the model, of what forward keeps for backward, and most of all together that the backend held. */
  readonly weights: number;
  readonly kept: number;
  readonly peak: number;
  /** Most resident bytes of the process. */
  readonly resident: number;
  readonly seconds: number;
  readonly loss: number;
}

/**
 * Most memory of a step of a model with random bfloat16 weights: forward only, Trainable Tokens, LoRA on the table, the whole table;
 * the last is computed, and marked so, where this machine has no room for it.
 */
export function benchHeadline(options: Options, report: Report): void {
  const name = (options.shapes[0] ?? (options.quick ? "tiny" : "gemma-2-2b")) as ShapeName;
  if (!Object.hasOwn(SHAPES, name))
    throw new UsageError(`--shape must be one of ${Object.keys(SHAPES).join(", ")}, got ${name}`);
  const shape: Shape = SHAPES[name];
  const threads = Math.max(...options.threads);
  const size = [shape.batch, shape.length, shape.tokens];
  if (report.has(`memory ${name} differences`, size, runtimeOf(options.node))) return;
  const add = (figure: string, contender: string, runtime: string, bytes: number): void => {
    report.note(`${figure}  [MiB]`);
    report.addBytes(`memory ${name} ${figure}`, size, { contender, threads, runtime }, bytes);
  };

  const found = new Map<HeadlineWhat, Taken>();
  for (const what of Object.keys(WHATS) as HeadlineWhat[]) {
    report.note(`\n${WHATS[what]}`);
    found.set(what, what === "full" ? wholeTable(report, name, found.get("rows")!, options) : run(name, what, options));
    const { runtime, kept, peak, resident, seconds } = found.get(what)!;
    const who = seconds > 0 ? WHATS[what] : `${WHATS[what]} (computed)`;
    add("held at most", who, runtime, peak);
    add("resident at most", who, runtime, resident);
    add("kept for backward", who, runtime, kept);
    if (seconds > 0) report.addValue(`memory ${name} step`, size, { contender: who, threads, runtime }, "s", seconds);
  }
  const [forward, rows, full] = [found.get("forward")!, found.get("rows")!, found.get("full")!];
  report.note("\ndifferences");
  const { runtime } = rows;
  add("differences", "b − a", runtime, rows.peak - forward.peak);
  add("differences", "b − a, the bound: 1.1 × (kept for backward + 4·k·D·4)", runtime, bound(rows, shape));
  add("differences", full.seconds > 0 ? "d − b" : "d − b (d computed)", runtime, full.peak - rows.peak);
}

/** Measured where this machine and the backend have room for it; computed where not, with a line that says so. */
function wholeTable(report: Report, name: ShapeName, rows: Taken, options: Options): Taken {
  const computed = fullOf(rows, SHAPES[name]);
  const free = available();
  if (free < MARGIN * computed.resident) {
    report.note(`computed: ${(free / 2 ** 30).toFixed(1)} GiB are free`);
    return computed;
  }
  try {
    return run(name, "full", options);
  } catch {
    report.note("computed: it ended with the error above");
    return computed;
  }
}

/** Room beside what a case takes, for others and for what is estimated too low. */
const MARGIN = 1.1;

/** Row, gradient and two moments of each token, and what backward needs. */
const bound = ({ kept }: Taken, { config, tokens }: Shape): number => 1.1 * (kept + 4 * tokens * widthOf(config) * 4);

const widthOf = (config: Shape["config"]): number => Number(config["hidden_size"] ?? config["n_embd"]);

/** As `rows`, with a float32 table in the place of a bfloat16 one, its gradient and two moments. */
function fullOf(rows: Taken, { config }: Shape): Taken {
  const more = config.vocab_size * widthOf(config) * (4 - 2 + 4 + 2 * 4);
  return { ...rows, peak: rows.peak + more, resident: rows.resident + more, seconds: 0 };
}

/** Bytes that a process can have, with what the system's caches would give back. */
function available(): number {
  try {
    const [, kilobytes] = /^MemAvailable:\s+(\d+) kB/m.exec(readFileSync("/proc/meminfo", "utf8"))!;
    return Number(kilobytes) * 1024;
  } catch {
    return freemem();
  }
}

function run(shape: ShapeName, what: HeadlineWhat, { node, threads }: Options): Taken {
  const script = fileURLToPath(new URL("./headlineCase.js", import.meta.url));
  const text = execFileSync(node, [script, shape, what, String(Math.max(...threads))], {
    stdio: ["ignore", "pipe", "inherit"],
    encoding: "utf8",
  });
  return JSON.parse(text) as Taken;
}
