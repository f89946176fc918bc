import type { Case } from "../case.ts";
import type { Contender } from "../contender.ts";
import { ours as kernels, startAll } from "../contenders.ts";
import { runtimeOf } from "../machine.ts";
import type { Options } from "../options.ts";
import type { Report } from "../report.ts";
import { ours } from "./contenders.ts";
import { caseOf, oneBatch } from "./plan.ts";
import { SHAPES } from "./shapes.ts";
import { trainingData } from "./trainingData.ts";

/** One size of a quantity that a step's time depends on. */
interface Size {
  readonly label: string;
  readonly c: Case;
  readonly contender: Contender;
}

/** Positions from the first trained token to the end, whatever comes before. */
const AFTER = 64;
const LENGTHS = [256, 512, 1024, 2048];
const QUICK_LENGTHS = [96, 128];
const TOKENS = [4, 64];
const TOKENS_AT = [128, 512];
const QUICK_TOKENS_AT = [16];

/**
 * How a step's time grows with the length of what comes before the first trained token, with the number of trained tokens, and with
 * the vocabulary, beside the head's own product. The sizes take turns, a process each.
 */
export async function benchScaling(options: Options, report: Report): Promise<void> {
  const threads = Math.max(...options.threads);
  const alone: Options = { ...options, threads: [threads], only: [] };
  const step = async (label: string, c: Case): Promise<Size[]> => {
    const [contender] = await startAll([ours("neolog", threads, options)], alone);
    return contender ? [{ label, c, contender }] : [];
  };
  const runtime = runtimeOf(options.node);
  const asked = (name: string): boolean => options.filter.length === 0 || options.filter.includes(name);
  if (asked("length") && !report.has("scaling length", [], runtime)) {
    await turns(
      report,
      "scaling length",
      await each(options.quick ? QUICK_LENGTHS : LENGTHS, (n) => step(`T = ${n}`, lengthCase(n))),
      options,
    );
  }
  for (const length of options.quick ? QUICK_TOKENS_AT : TOKENS_AT) {
    const name = `tokens, T = ${length}`;
    if (!asked("tokens") || report.has(`scaling ${name}`, [], runtime)) continue;
    const sizes = await each(TOKENS, (k) => step(`k = ${k}`, tokensCase(k, length)));
    await turns(report, `scaling ${name}`, sizes, options);
  }
  if (asked("vocabulary") && !report.has("scaling vocabulary", [], runtime)) {
    const { vocab_size, n_embd } = SHAPES.gpt2.config;
    const [head] = await startAll(
      kernels(alone).filter(({ name, threads: count }) => name === "neolog" && count === threads),
      alone,
    );
    const shape = [SHAPES.gpt2.length - 1, n_embd, vocab_size];
    const product: Case = {
      kernel: "linearCrossEntropy",
      shape,
      dtype: "bfloat16",
      amount: 0,
      roof: "none",
      unit: "ms",
    };
    const sizes = [
      ...(await each([vocab_size, 2 * vocab_size], (V) => step(`V = ${V}`, vocabularyCase(V)))),
      ...(head ? [{ label: `the head of V = ${vocab_size} alone`, c: product, contender: head }] : []),
    ];
    await turns(report, "scaling vocabulary", sizes, options);
  }
}

async function each(values: readonly number[], size: (value: number) => Promise<Size[]>): Promise<Size[]> {
  const all: Size[] = [];
  for (const value of values) all.push(...(await size(value)));
  return all;
}

function lengthCase(length: number): Case {
  const plan = { shape: "smollm2-135m", name: "b", batch: 1, length, tokens: 4 } as const;
  const { vocab_size } = SHAPES[plan.shape].config;
  const data = trainingData(vocab_size, "b", { ...plan, first: length - AFTER });
  return oneBatch({ ...caseOf(plan), training: { model: plan.shape, ...data } });
}

const tokensCase = (tokens: number, length: number): Case =>
  oneBatch(caseOf({ shape: "gpt2", name: "a", batch: 1, length, tokens }));

function vocabularyCase(vocab_size: number): Case {
  const plan = { shape: "gpt2", name: "a", batch: 1, length: 128, tokens: 4 } as const;
  const { dir: _checkpoint, ...c } = caseOf(plan);
  const config = { ...SHAPES.gpt2.config, vocab_size };
  return { ...c, training: { model: "gpt2", config, ...trainingData(vocab_size, "a", plan) } };
}

/** One sample of each size a round; the first round warms up. */
async function turns(report: Report, name: string, sizes: readonly Size[], options: Options): Promise<void> {
  try {
    for (const { contender, c } of sizes) await contender.prepare(c);
    const samples = sizes.map((): number[] => []);
    for (let round = -1; round < options.rounds; round++) {
      for (const [i, { contender }] of sizes.entries()) {
        const { ns } = await contender.sample(options.sample);
        if (round >= 0) samples[i]!.push(ns);
      }
    }
    report.note(`\n${name}  [ms]`);
    for (const [i, { label, c, contender }] of sizes.entries()) {
      const { threads } = contender.spec;
      const who = { contender: label, threads, roof: null, runtime: contender.hello.runtime, disturbance: 0 };
      const figure = report.figure({ ...c, kernel: name, shape: [], unit: "ms" }, samples[i]!, who);
      report.write({ ...figure, name }, null);
    }
  } finally {
    for (const { contender } of sizes) contender.stop();
  }
}
