import { backendInfo } from "./backend.ts";
import {
  ADAPTER,
  BACKEND,
  MODEL,
  REVISION,
  command,
  nonNegative,
  nonNegativeInteger,
  positiveInteger,
} from "./command.ts";
import { CliError } from "./errors.ts";
import { type Io, breathe } from "./io.ts";
import { loadModel, needTokenizer } from "./load.ts";
import { Output } from "./output.ts";

/** neolog generate: a continuation of a prompt. */
export const generateCommand = (io: Io) =>
  command("generate", "Continue a prompt; greedy unless a temperature is given.", [
    'generate --model ./llama --prompt "Once upon a time"',
    'generate --model ./llama --adapter ./my-adapter --prompt "The <wug>" --temperature 0.8 --seed 7',
  ])
    .requiredOption(...MODEL)
    .option(...REVISION)
    .option(...ADAPTER)
    .requiredOption("--prompt <text>", "text to continue")
    .option("--max-new-tokens <n>", "tokens to add at most", positiveInteger, 50)
    .option("--temperature <x>", "draw from the distribution, sharpened below 1; 0 is greedy", nonNegative, 0)
    .option("--seed <n>", "seed of the draws", nonNegativeInteger, 0)
    .option(...BACKEND)
    .action(async (flags) => {
      const output = new Output(io, flags);
      const loaded = await loadModel(flags, output);
      const tokenizer = needTokenizer(loaded, flags);
      const prompt = tokenizer.encode(flags.prompt);
      if (prompt.length === 0) throw new CliError("--prompt: must give at least one token, got none");
      const sampling =
        flags.temperature > 0 ? { do_sample: true, temperature: flags.temperature, seed: flags.seed } : {};
      const progress = output.progress("tokens", flags.maxNewTokens);
      let count = 0;
      const started = performance.now();
      const [ids] = await loaded.model
        .generate({
          input_ids: [prompt],
          max_new_tokens: flags.maxNewTokens,
          ...sampling,
          signal: io.signal,
          onToken: () => {
            progress.update(++count);
            return breathe();
          },
        })
        .finally(() => progress.stop());
      const seconds = (performance.now() - started) / 1000;
      const text = tokenizer.decode(ids!);
      output.result({ text, ids, tokens_per_second: count / seconds, backend: backendInfo() }, text);
    });
