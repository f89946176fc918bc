import { type GenerateOptions, generateStream } from "@neolog/models";
import { backendInfo } from "./backend.ts";
import {
  ADAPTER,
  ALLOW_SOFTWARE,
  BACKEND,
  MODEL,
  REVISION,
  collected,
  command,
  nonNegative,
  nonNegativeInteger,
  positive,
  positiveInteger,
  probability,
} from "./command.ts";
import { CliError, UsageError } from "./errors.ts";
import { kindOf } from "./example.ts";
import type { Io } from "./io.ts";
import { loadModel, needGenerator, needTokenizer } from "./load.ts";
import { Output } from "./output.ts";

/** neolog generate: a continuation of a prompt. */
export const generateCommand = (io: Io) =>
  command("generate", "Continue a prompt; greedy unless a flag of the draw is given.", [
    'generate --model ./llama --prompt "Once upon a time"',
    'generate --model ./llama --adapter ./my-adapter --prompt "The <wug>" --temperature 0.8 --seed 7',
    'generate --model ./llama --prompt "Q: What is a wug? A:" --top-p 0.9 --stop "Q:" --stream',
  ])
    .requiredOption(...MODEL)
    .option(...REVISION)
    .option(...ADAPTER)
    .requiredOption("--prompt <text>", "text to continue")
    .option("--max-new-tokens <n>", "tokens to add at most", positiveInteger, 50)
    .option("--stop <text>", "end with the token that completes this text; may be given again", collected)
    .option("--stream", "write the text as it is made; with --json on stderr")
    .option(
      "--temperature <x>",
      "draw, from a distribution sharpened below 1; 0 is greedy (default: 1 in a draw)",
      nonNegative,
    )
    .option("--top-k <n>", "draw among the n likeliest tokens", positiveInteger)
    .option("--top-p <x>", "draw among the likeliest tokens that reach this probability together", probability)
    .option("--min-p <x>", "draw among tokens at least this likely, relative to the likeliest", probability)
    .option("--seed <n>", "seed of the draws", nonNegativeInteger, 0)
    .option("--repetition-penalty <x>", "above 1: make tokens that occurred less likely", positive)
    .option("--no-repeat-ngram-size <n>", "let no run of n tokens occur twice", nonNegativeInteger, 0)
    .option(...BACKEND)
    .option(...ALLOW_SOFTWARE)
    .action(async (flags) => {
      const output = new Output(io, flags);
      const draw = drawOf(flags);
      const loaded = await loadModel(flags, output);
      const model = needGenerator(loaded, flags);
      const tokenizer = needTokenizer(loaded, flags);
      const prompt = tokenizer.encode(flags.prompt);
      if (prompt.length === 0) throw new CliError("--prompt: must give at least one token, got none");
      const begun = kindOf(loaded.base) === "seq2seq" ? [] : prompt; // an encoder-decoder begins a text of its own
      const ids = [...begun];
      // a bar would cut through the text
      const progress = flags.stream ? null : output.progress("tokens", flags.maxNewTokens);
      const options = {
        ...draw,
        input_ids: [prompt],
        max_new_tokens: flags.maxNewTokens,
        repetition_penalty: flags.repetitionPenalty,
        no_repeat_ngram_size: flags.repeatNgramSize,
        stop_strings: flags.stop,
        tokenizer,
        signal: io.signal,
        onToken: ([id]: readonly number[]) => {
          ids.push(id!);
          progress?.update(ids.length - begun.length);
        },
      } satisfies GenerateOptions;
      const started = performance.now();
      if (flags.stream) {
        output.stream(tokenizer.decode(begun));
        try {
          for await (const text of generateStream(model, options)) output.stream(text);
        } finally {
          output.stream("\n");
        }
      } else await model.generate(options).finally(() => progress?.stop());
      const seconds = (performance.now() - started) / 1000;
      const text = tokenizer.decode(ids);
      const tokens_per_second = (ids.length - begun.length) / seconds;
      const json = { text, ids, tokens_per_second, backend: backendInfo() };
      output.result(json, ...(flags.stream ? [] : [text]));
    });

interface DrawFlags {
  readonly temperature?: number | undefined;
  readonly topK?: number | undefined;
  readonly topP?: number | undefined;
  readonly minP?: number | undefined;
  readonly seed: number;
}

/** The options of a draw, or none where no flag asks for one. Throws UsageError for flags of a draw at temperature 0. */
function drawOf({ temperature, topK, topP, minP, seed }: DrawFlags): Partial<GenerateOptions> {
  const given = Object.entries({ "--top-k": topK, "--top-p": topP, "--min-p": minP }).filter(
    ([, x]) => x !== undefined,
  );
  if (temperature === 0 && given.length > 0) {
    throw new UsageError(
      `${given[0]![0]}: must come with a temperature above 0, got --temperature 0, which does not draw`,
    );
  }
  if (!temperature && given.length === 0) return {};
  return { do_sample: true, temperature, top_k: topK, top_p: topP, min_p: minP, seed };
}
