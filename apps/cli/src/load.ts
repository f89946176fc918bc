import { openFolder } from "@neolog/checkpoint";
import {
  AutoModelWithLMHead,
  AutoTokenizer,
  type GenerateOptions,
  type LanguageModel,
  MaskedLM,
  type ModelOutput,
  type Tokenizer,
} from "@neolog/models";
import { ConfigError, PeftModel, TargetError } from "@neolog/peft-tokens";
import type { Tensor } from "@neolog/tensor";
import { type BackendFlags, chooseBackend } from "./backend.ts";
import { CliError } from "./errors.ts";
import { modelFolder } from "./hub.ts";
import { breathe } from "./io.ts";
import type { Output } from "./output.ts";

export interface ModelFlags extends BackendFlags {
  readonly model: string;
  readonly adapter?: string | undefined;
  readonly revision?: string | undefined;
}

/** A model ready to run. */
export interface Loaded {
  /** The base with its adapter, if one was named. */
  readonly model: LanguageModel | PeftModel<LanguageModel>;
  readonly base: LanguageModel;
  readonly peft: PeftModel<LanguageModel> | null;
  /** The adapter's own tokenizer, else the model's, else none. */
  readonly tokenizer: Tokenizer | null;
}

/** Loads the base, then the adapter on it; a table with fewer rows than the adapter's tokenizer has tokens grows first. */
export async function loadModel(flags: ModelFlags, output: Output): Promise<Loaded> {
  await chooseBackend(flags);
  if (flags.adapter !== undefined) await openFolder(flags.adapter);
  const folder = await modelFolder(flags.model, output, flags.revision);
  const base = await loadBase(folder, output);
  if (flags.adapter === undefined) return { model: base, base, peft: null, tokenizer: await tokenizerOf(folder) };
  const own = await tokenizerOf(flags.adapter);
  if (own && own.vocabSize > base.config.vocab_size) base.resizeTokenEmbeddings(own.vocabSize);
  const peft = await PeftModel.fromPretrained(base, flags.adapter, {
    onWarning: ({ message }) => output.note(message),
  }).catch((error: unknown) => {
    const isConfig = error instanceof ConfigError || error instanceof TargetError;
    throw isConfig ? new CliError(`${flags.adapter}/adapter_config.json: ${error.message}`) : error;
  });
  return { model: peft, base, peft, tokenizer: own ?? (await tokenizerOf(folder)) };
}

/** A forward pass of a model of any kind over a batch that it takes. */
export const run = (model: Loaded["model"], batch: object): ModelOutput =>
  (model as { forward(inputs: object): ModelOutput }).forward(batch);

/** Its loss alone: cheaper. */
export const lossOf = (model: Loaded["model"], batch: object): Tensor =>
  (model as { loss(inputs: object): Tensor }).loss(batch);

/** The model alone, with a progress bar while its tensors are read. */
export async function loadBase(dir: string, output: Output): Promise<LanguageModel> {
  let progress: ReturnType<Output["progress"]> | undefined;
  try {
    return await AutoModelWithLMHead.fromPretrained(dir, {
      onProgress(_done, _total, bytes, totalBytes) {
        progress ??= output.progress("loading", totalBytes, "bytes");
        progress.update(bytes);
        return breathe();
      },
    });
  } finally {
    progress?.stop();
  }
}

/** The tokenizer of a folder, or null where it has none. */
export async function tokenizerOf(dir: string): Promise<Tokenizer | null> {
  return (await (await openFolder(dir)).has("tokenizer.json")) ? AutoTokenizer.fromPretrained(dir) : null;
}

interface Generates {
  generate(options: GenerateOptions): Promise<number[][]>;
}

/** The model, for commands that continue text. */
export function needGenerator({ model, base }: Loaded, flags: ModelFlags): Generates {
  if (!(base instanceof MaskedLM)) return model as Generates;
  throw new CliError(
    `${flags.model}: must be a model that continues text, found "${base.config.model_type}", which fills gaps in a text`,
  );
}

/** The tokenizer, for commands that read or write text: one whose every id the table has a row for. */
export function needTokenizer({ tokenizer, base }: Loaded, { model, adapter }: ModelFlags): Tokenizer {
  const looked = adapter === undefined ? model : `${adapter} or ${model}`;
  if (!tokenizer) throw new CliError(`${looked}: must hold tokenizer.json, found none; text needs a tokenizer`);
  const { vocab_size } = base.config;
  if (tokenizer.vocabSize <= vocab_size) return tokenizer;
  throw new CliError(
    `${looked}: the table must have a row for every id of tokenizer.json, got ${vocab_size} rows and ids up to ` +
      `${tokenizer.vocabSize - 1}; resizeTokenEmbeddings(${tokenizer.vocabSize}) adds rows, "train --tokens" trains new ones`,
  );
}
