import type { PretrainedConfig } from "@neolog/models";
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { spreadOf } from "../figure.ts";
import { runtimeOf } from "../machine.ts";
import type { Options } from "../options.ts";
import type { Report } from "../report.ts";

/** What a training run leaves in use after a step. */
export interface Memory {
  readonly step: number;
  /** Buffers and bytes in them. */
  readonly live: number;
  readonly bytes: number;
  /** Bytes of the backend's memories, used or free. */
  readonly reserved: number;
  readonly heapUsed: number;
  readonly arrayBuffers: number;
  readonly rss: number;
}
export const SAMPLED_STEPS = 100;
export const TEXTS = 300;

export interface ManyStepsShape {
  readonly config: PretrainedConfig;
  readonly batchSize: number;
  /** Tokens of a text at most. */
  readonly longest: number;
}
export const MANY_STEPS = {
  tiny: {
    config: {
      model_type: "llama",
      vocab_size: 2000,
      hidden_size: 128,
      intermediate_size: 256,
      num_hidden_layers: 2,
      num_attention_heads: 4,
      num_key_value_heads: 2,
      max_position_embeddings: 64,
      rms_norm_eps: 1e-5,
      hidden_act: "silu",
      tie_word_embeddings: true,
    },
    batchSize: 2,
    longest: 32,
  },
  /** GPT-2 small with 4 of its 12 layers. */
  gpt2: {
    config: {
      model_type: "gpt2",
      vocab_size: 50_257,
      n_embd: 768,
      n_layer: 4,
      n_head: 12,
      n_positions: 1024,
      embd_pdrop: 0,
      attn_pdrop: 0,
      resid_pdrop: 0,
    },
    batchSize: 1,
    longest: 24,
  },
} as const satisfies { readonly [name: string]: ManyStepsShape };
export type ManyStepsName = keyof typeof MANY_STEPS;

const STEPS = 5000;
const QUICK_STEPS = 300;
/** Steps until a run is warm; until it has seen every text, where it keeps something of each. */
const WARM = { plain: 100, reuse: 200 };
/** Resident memory is the median of so many samples: V8's compiler and collector take and leave some MiB from one to the next. */
const TOGETHER = 5;
const MIB = 2 ** 20;

interface Run {
  readonly shape: ManyStepsName;
  /** Collect garbage before memory is read; V8 otherwise keeps some tens of MiB of it, which is much beside a tiny model. */
  readonly collected: boolean;
  /** Keep what comes before the first trained token of each text. */
  readonly reuse?: boolean;
  /** How much more than from step 100 on may ever be resident; null for whatever V8 makes of it. */
  readonly bound: number | null;
}
const RUNS: readonly Run[] = [
  { shape: "tiny", collected: true, bound: 1.02 },
  { shape: "tiny", collected: true, reuse: true, bound: 1.02 },
  { shape: "tiny", collected: false, bound: null },
  { shape: "gpt2", collected: false, bound: 1.02 },
  { shape: "gpt2", collected: false, reuse: true, bound: 1.02 },
];

/**
 * 5,000 training steps on texts of many lengths: buffers and the memories that hold them must be as many after any step as after the
 * first hundred, and resident memory within 2 %. Throws where they are not.
 */
export function benchManySteps(options: Options, report: Report): void {
  const grown: string[] = [];
  const steps = options.quick ? QUICK_STEPS : STEPS;
  const words = options.quick ? [...options.filter, "tiny"] : options.filter;
  for (const run of RUNS.filter(({ shape }) => words.every((word) => word === "steps" || shape === word))) {
    const threads = Math.max(...options.threads);
    const name = `${run.shape}, ${steps} steps, garbage ${run.collected ? "collected" : "left to V8"}${run.reuse ? ", reuse" : ""}`;
    const measuredLast = `${name}: ${run.bound === null ? "objects at the end" : "grown"}`;
    if (report.has(measuredLast, [steps], runtimeOf(options.node))) continue;
    const { runtime, milliseconds, samples } = measured(options.node, run, threads, steps);
    const from = run.reuse ? WARM.reuse : WARM.plain;
    report.note(`\n${name}`);
    const warm = samples.find(({ step }) => step >= from)!;
    const later = samples.filter(({ step }) => step >= from);
    const resident = medians(later);
    const last = later.at(-1)!;
    const add = (what: string, unit: string, value: number): void => {
      report.note(`${what}  [${unit}]`);
      report.addValue(`${name}: ${what}`, [last.step], { contender: "neolog wasm", threads, runtime }, unit, value);
    };
    add("step", "ms", milliseconds);
    add(`resident from step ${from} on`, "MiB", resident[0]! / MIB);
    add("resident at most since", "MiB", Math.max(...resident) / MIB);
    add("resident at the end", "MiB", resident.at(-1)! / MIB);
    add("objects at the end", "MiB", last.heapUsed / MIB);
    if (run.bound !== null && !options.quick) add("grown", "×", Math.max(...resident) / resident[0]!);
    const found = growth(warm, later, options.quick ? null : run.bound);
    if (found) grown.push(`${name}: ${found}`);
  }
  if (grown.length > 0) throw new Error(grown.join("; "));
}

/** What has grown, or null. */
function growth(warm: Memory, later: readonly Memory[], bound: number | null): string | null {
  for (const what of ["live", "bytes", "reserved"] as const) {
    const other = later.find((sample) => sample[what] !== warm[what]);
    if (!other) continue;
    return `${what} must stay as after step ${warm.step} (${warm[what]}), got ${other[what]} after ${other.step}`;
  }
  const resident = medians(later);
  const grown = Math.max(...resident) / resident[0]!;
  if (bound === null || grown <= bound) return null;
  return `resident memory must stay within ${bound} times what it was from step ${warm.step} on, got ${grown.toFixed(4)} times`;
}

/** Resident bytes, some samples together. */
const medians = (samples: readonly Memory[]): number[] =>
  Array.from(
    { length: Math.max(1, Math.floor(samples.length / TOGETHER)) },
    (_, i) => spreadOf(samples.slice(i * TOGETHER, (i + 1) * TOGETHER).map(({ rss }) => rss)).median,
  );

function measured(
  node: string,
  { shape, collected, reuse }: Run,
  threads: number,
  steps: number,
): { readonly runtime: string; readonly milliseconds: number; readonly samples: readonly Memory[] } {
  const script = fileURLToPath(new URL("./manySteps.js", import.meta.url));
  const args = [...(collected ? ["--expose-gc"] : []), script, shape, String(steps), String(threads)];
  if (reuse) args.push("reuse");
  return JSON.parse(execFileSync(node, args, { stdio: ["ignore", "pipe", "inherit"], encoding: "utf8" }));
}
