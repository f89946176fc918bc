import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

/** What the command line asks of a benchmark. */
export interface Options {
  /** Cases whose names hold all of these words; all cases when empty. */
  readonly filter: readonly string[];
  /** Lines of JSON alone. */
  readonly json: boolean;
  /** The Node that runs the contenders. */
  readonly node: string;
  readonly threads: readonly number[];
  readonly rounds: number;
  /** Milliseconds of a sample at least. */
  readonly sample: number;
  /** Seconds to wait before a round, at most, until other programs leave the machine alone. */
  readonly wait: number;
  /** Contenders of these names, or, where none has it, whose names hold one; all when empty. */
  readonly only: readonly string[];
  /** Of training steps: names and sizes asked for; each empty where none is. */
  readonly shapes: readonly string[];
  readonly cases: readonly string[];
  readonly lengths: readonly number[];
  readonly batches: readonly number[];
  /** Numbers of token rows that train. */
  readonly tokens: readonly number[];
  /** The acceptance matrix. */
  readonly all: boolean;
  /** With the JavaScript libraries that can train. */
  readonly peers: boolean;
  /** After which rows are compared. */
  readonly steps: number;
  /** A file that figures are added to; what it has is not measured again. Empty for none. */
  readonly out: string;
  /** Every part in small sizes, once: whether it runs, not how fast. */
  readonly quick: boolean;
}

export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** Of --quick, where nothing else is asked for. */
const QUICK = { threads: "2", rounds: "1", sample: "1", steps: "3" };

export const USAGE = `npm run bench -- [kernels|step|rows|peers|scaling|generate|memory|load|compare|render|report] [filter …] [options]
  (no name)             all that measure, one after the other; with --quick in small sizes, to see that every part runs
  kernels [filter …]    products, attention, elementwise kernels, loading; with peers where they are installed
  step [--all]          training steps of token rows against PEFT on torch: tiny and gpt2, case a; with --all the acceptance matrix
  rows                  rows after training steps against PEFT's; tiny, all cases
  peers                 steps of GPT-2 small against every library that trains it; its losses against onnxruntime and torch
  scaling [length|tokens|vocabulary]   how a step's time grows with what comes before the first trained token, and with sizes
  generate              tokens per second of GPT-2 small, against the memory it reads and against transformers on torch
  memory                bytes of a step beside the model
  memory step           the most resident memory of a step against PEFT's: GPT-2 small and Qwen2.5-0.5B
  memory steps [tiny|gpt2]  5,000 training steps: memory must stay as it is after step 100
  memory headline       the most memory of a step of Gemma 2 2B: forward, Trainable Tokens, LoRA on the table, the whole table
  load                  a folder of 1.2 billion parameters: seconds and memory to load it, tokens per second; needs 2.5 GB of disk
  compare BASE [HEAD] [filter …]   two revisions of ours, interleaved; HEAD is this checkout where it is "."
  render FILE.jsonl     recorded figures as Markdown
  report NAME FILE.jsonl…  report/NAME.md with the bars that are met or missed, its lines and plots
options
  --json                lines of JSON alone; else a table, and lines where stdout is no terminal
  --node VERSION|PATH   run what is JavaScript under another Node, such as 24 (npm run bench:peers-install)
  --threads 1,2         numbers of threads
  --rounds N            samples of each contender, interleaved (11)
  --sample MS           milliseconds of a sample at least (40)
  --wait SECONDS        before a round wait, at most so long, until other programs leave the machine alone (0)
  --only NAME,…         contenders, such as neolog,torch
  --out FILE.jsonl      add the figures to a file; what it has of this commit and this Node is not measured again
  --quick               small sizes, once each
options of step and rows
  --shape S,…           tiny, gpt2, smollm2-135m, qwen2.5-0.5b, gemma-2-2b (random weights)
  --case a,b,c          trained tokens from the first position on; the first at half of the sequence on average; in half of the samples
  --length T,… --batch B,… --tokens K,…
  --steps N             after which rows are compared (50)`;

/** The name of a benchmark, "all" where none is given, and its options. Throws UsageError. */
export function parseOptions(args: readonly string[]): { readonly bench: string; readonly options: Options } {
  const { values, positionals } = parsed(args);
  const [bench = "all", ...filter] = positionals;
  return {
    bench,
    options: {
      filter,
      json: values.json,
      node: nodeAt(values.node),
      threads: counts("threads", values.threads),
      rounds: count("rounds", values.rounds),
      sample: count("sample", values.sample),
      wait: values.wait === "0" ? 0 : count("wait", values.wait),
      only: list(values.only),
      shapes: list(values.shape),
      cases: list(values.case),
      lengths: counts("length", values.length),
      batches: counts("batch", values.batch),
      tokens: counts("tokens", values.tokens),
      all: values.all,
      peers: values.peers,
      steps: count("steps", values.steps),
      out: values.out,
      quick: values.quick,
    },
  };
}

function parsed(args: readonly string[]) {
  try {
    const usual = {
      threads: "1,2",
      rounds: "11",
      sample: "40",
      steps: "50",
      ...(args.includes("--quick") ? QUICK : {}),
    };
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        json: { type: "boolean", default: false },
        node: { type: "string", default: "" },
        threads: { type: "string", default: usual.threads },
        rounds: { type: "string", default: usual.rounds },
        sample: { type: "string", default: usual.sample },
        wait: { type: "string", default: "0" },
        only: { type: "string", default: "" },
        shape: { type: "string", default: "" },
        case: { type: "string", default: "" },
        length: { type: "string", default: "" },
        batch: { type: "string", default: "" },
        tokens: { type: "string", default: "" },
        all: { type: "boolean", default: false },
        peers: { type: "boolean", default: false },
        steps: { type: "string", default: usual.steps },
        out: { type: "string", default: "" },
        quick: { type: "boolean", default: false },
      },
    });
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

const list = (text: string): string[] => text.split(",").filter((part) => part !== "");

const counts = (name: string, text: string): number[] => list(text).map((part) => count(name, part));

function count(name: string, text: string): number {
  const n = Number(text);
  if (!Number.isInteger(n) || n < 1) throw new UsageError(`--${name} must be a positive integer, got ${text}`);
  return n;
}

/** The program of a version that is installed with the peers, a path as it is, this Node where nothing is asked for. */
function nodeAt(asked: string): string {
  if (asked === "" || asked === process.versions.node.split(".")[0]) return process.execPath;
  const path = /^\d+$/.test(asked)
    ? fileURLToPath(new URL("../peers/node_modules/node/bin/node", import.meta.url))
    : asked;
  if (!existsSync(path)) throw new UsageError(`--node must be here: ${path}; run npm run bench:peers-install`);
  return path;
}
