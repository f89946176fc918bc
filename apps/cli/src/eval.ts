import { Scope, untracked } from "@neolog/tensor";
import { backendInfo } from "./backend.ts";
import { ADAPTER, BACKEND, DATA, MODEL, REVISION, command, positiveInteger } from "./command.ts";
import { readExamples } from "./data.ts";
import { type Example, type ModelKind, collate, kindOf, predictedTokens } from "./example.ts";
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
    .option(...BACKEND)
    .action(async (flags) => {
      const output = new Output(io, flags);
      const { model, base, tokenizer } = await loadModel(flags, output);
      const { vocab_size } = base.config;
      const kind = kindOf(base);
      const { maxLength } = flags;
      const examples = await readExamples(flags.data, { tokenizer, vocabSize: vocab_size, kind, maxLength });
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
  examples: readonly Example[],
  batchSize: number,
  { signal, onProgress }: MeanLossOptions = {},
): Promise<{ loss: number; tokens: number }> {
  let total = 0;
  let tokens = 0;
  for (let start = 0; start < examples.length; start += batchSize) {
    using _scope = new Scope();
    const batch = examples.slice(start, start + batchSize);
    const loss = untracked(() => lossOf(model, collate(batch)));
    const count = batch.reduce((sum, example) => sum + predictedTokens(example, kind), 0);
    total += (await loss.item()) * count;
    tokens += count;
    onProgress?.(start + batch.length);
    await breathe();
    signal?.throwIfAborted();
  }
  return { loss: total / tokens, tokens };
}
