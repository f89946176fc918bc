import { Random, Scope, type Tensor, argmax, untracked } from "@neolog/tensor";
import type { GenerationConfig, PretrainedConfig } from "./config.ts";
import type { Decoding, Prompt } from "./decoding.ts";
import { type GenerateOptions, checkOptions, endsAndPad, newTokensOf } from "./generateOptions.ts";
import { type HostMatrix, toHost, toHostLike } from "./inputs.ts";
import type { LogitsProcessor } from "./logits.ts";
import { nextTask } from "./nextTask.ts";
import { chooseNext, processorsOf } from "./sampling.ts";
import { stopStrings } from "./stopStrings.ts";

/** A model that continues rows of ids. */
export interface Generator {
  readonly config: PretrainedConfig;
  readonly generationConfig: GenerationConfig | null;
  /** Rows that begin with this prompt. */
  decoding(prompt: Prompt): Decoding;
}

/**
 * Prompt and continuation of each row, up to max_new_tokens or until every row has ended. Decodes with a key/value cache; the
 * same options give the same ids. Sampling is never on by default, whatever generation_config.json says. The event loop turns after
 * each token. Throws GenerateOptionError, SamplingError, and the signal's reason.
 */
export async function generate(model: Generator, options: GenerateOptions): Promise<number[][]> {
  checkOptions(options);
  options.signal?.throwIfAborted();
  const decoding = model.decoding(promptOf(options));
  try {
    await decode(decoding, model, options);
  } finally {
    decoding.dispose();
  }
  return [...decoding.ids];
}

async function decode(decoding: Decoding, model: Generator, options: GenerateOptions): Promise<void> {
  const { ids } = decoding;
  const length = ids[0]!.length;
  const { ends, pad } = endsAndPad(options, model.generationConfig ?? model.config);
  const newTokens = newTokensOf(options, length, positionsOf(model.config));
  const processors = processorsOf(options, ends, length);
  const random = options.do_sample ? new Random(options.seed ?? 0) : null;
  const stops = [options.stop_strings ?? []].flat();
  const stopped = stops.length > 0 ? stopStrings(stops, options.tokenizer!) : () => false;
  const finished = ids.map(() => false);
  for (let step = 0; step < newTokens && finished.includes(false); step++) {
    const chosen = await nextIds(decoding, processors, random);
    const next = chosen.map((id, b) => (finished[b] ? pad : id));
    next.forEach((id, b) => {
      ids[b]!.push(id);
      finished[b] ||= ends.includes(id) || stopped(ids[b]!);
    });
    await options.onToken?.(next);
    await nextTask();
    options.signal?.throwIfAborted();
  }
}

/** The next id of each row, of those that have ended too. Only the ids leave the device where no score has to be seen. */
async function nextIds(
  decoding: Decoding,
  processors: readonly LogitsProcessor[],
  random: Random | null,
): Promise<number[]> {
  const plain = processors.length === 0 && !random;
  const rows = decoding.ids.length;
  const result = kept(() => {
    const logits = decoding.next();
    return plain ? argmax(logits, -1) : logits;
  });
  try {
    const values = await result.data();
    if (plain) return [...values];
    const vocab = values.length / rows;
    return decoding.ids.map((row, b) =>
      chooseNext(values.subarray(b * vocab, (b + 1) * vocab) as Float32Array, row, processors, random),
    );
  } finally {
    result.dispose();
  }
}

/** What `run` gives, without provenance; all else that it makes is freed. */
function kept(run: () => Tensor): Tensor {
  using scope = new Scope();
  return scope.keep(untracked(run));
}

/** The rows of input_ids, num_return_sequences times each. */
function promptOf({ input_ids, attention_mask, num_return_sequences = 1 }: GenerateOptions): Prompt {
  const prompt = toHost("input_ids", input_ids);
  const { rows, columns } = prompt;
  const mask = attention_mask
    ? toHostLike("attention_mask", attention_mask, rows, columns)
    : { rows, columns, values: new Int32Array(rows * columns).fill(1) };
  const repeated = ({ values }: HostMatrix): number[][] =>
    Array.from({ length: rows * num_return_sequences }, (_, i) => {
      const b = Math.floor(i / num_return_sequences);
      return [...values.subarray(b * columns, (b + 1) * columns)];
    });
  return { ids: repeated(prompt), attention: repeated(mask) };
}

/** How many positions a model has, in the spelling of its family. */
function positionsOf(config: PretrainedConfig): number | undefined {
  const positions = config["max_position_embeddings"] ?? config["n_positions"];
  return typeof positions === "number" ? positions : undefined;
}
