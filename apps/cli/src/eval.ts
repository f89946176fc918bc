import type { HostMatrix, SequenceDataset } from "@neolog/models";
import { Scope, untracked } from "@neolog/tensor";
import { backendInfo } from "./backend.ts";
import { batchesOf } from "./batches.ts";
import {
  ADAPTER,
  ALLOW_SOFTWARE,
  BACKEND,
  DATA,
  MODEL,
  NO_CACHE,
  REVISION,
  command,
  positiveInteger,
} from "./command.ts";
import { encodedExamples } from "./encoded.ts";
import { IGNORED, type ModelKind, kindOf } from "./example.ts";
import { type Io, breathe } from "./io.ts";
import { type Loaded, loadModel, lossOf } from "./load.ts";
import { Output } from "./output.ts";
import { columns, thousands } from "./text.ts";

/** neolog eval: mean loss per predicted token of a file. */
export const evalCommand = (io: Io) =>
  command("eval", "Measure loss and perplexity of a model, with or without an adapter, on a JSONL file.", [
    "eval --model ./llama --data held-out.jsonl",
    "eval --model ./llama --adapter ./my-adapter --data held-out.jsonl --json",
  ])
    .requiredOption(...MODEL)
    .option(...REVISION)
    .option(...ADAPTER)
    .requiredOption(...DATA)
    .option("--batch-size <n>", "rows per forward pass", positiveInteger, 8)
    .option("--max-length <n>", "tokens per row at most; longer rows are cut", positiveInteger)
    .option(...NO_CACHE)
    .option(...BACKEND)
    .option(...ALLOW_SOFTWARE)
    .action(async (flags) => {
      const output = new Output(io, flags);
      const { model, base, tokenizer } = await loadModel(flags, output);
      const { vocab_size } = base.config;
      const kind = kindOf(base);
      const { maxLength } = flags;
      const reading = { tokenizer, vocabSize: vocab_size, kind, maxLength };
      const { examples } = await encodedExamples(flags.data, reading, output, { cache: flags.cache });
      const progress = output.progress("rows", examples.length);
      const { loss, tokens } = await meanLoss(model, kind, examples, flags.batchSize, {
        signal: io.signal,
        onProgress: (done) => progress.update(done),
      }).finally(() => progress.stop());
      const perplexity = Math.exp(loss);
      output.result(
        { loss, perplexity, tokens, backend: backendInfo() },
        ...columns([
          ["loss", loss.toFixed(6)],
          ["perplexity", perplexity.toFixed(4)],
          ["tokens", thousands(tokens)],
        ]),
      );
    });

interface MeanLossOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: (examples: number) => void;
}

/** Mean cross entropy over all predicted tokens, whatever batches they fall into. */
async function meanLoss(
  model: Loaded["model"],
  kind: ModelKind,
  examples: SequenceDataset,
  batchSize: number,
  { signal, onProgress }: MeanLossOptions = {},
): Promise<{ loss: number; tokens: number }> {
  let [total, tokens, done] = [0, 0, 0];
  const options = { batch_size: batchSize, shuffle: false, seed: 0, batching: "bucketed" } as const;
  for await (const { inputs } of batchesOf(examples, options, kind).epoch(0)) {
    using _scope = new Scope();
    const loss = untracked(() => lossOf(model, inputs));
    const count = targetsIn(inputs.labels, kind);
    total += (await loss.item()) * count;
    tokens += count;
    onProgress?.((done += inputs.labels.rows));
    await breathe();
    signal?.throwIfAborted();
  }
  return { loss: total / tokens, tokens };
}

/** How many labels count: a causal model predicts none for the first position. */
const targetsIn = ({ values, columns }: HostMatrix, kind: ModelKind): number =>
  values.filter((label, i) => label !== IGNORED && !(kind === "causal" && i % columns === 0)).length;
