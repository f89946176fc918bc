import type { LanguageModel, Tokenizer } from "@neolog/models";
import { ConfigError, PeftModel, TargetError, tokensOf } from "@neolog/peft-tokens";
import { basename, resolve } from "node:path";
import { type BackendFlags, chooseBackend } from "./backend.ts";
import { CliError } from "./errors.ts";
import { modelFolder } from "./hub.ts";
import { loadBase, tokenizerOf } from "./load.ts";
import type { Output } from "./output.ts";

export interface AdaptersFlags extends BackendFlags {
  readonly model: string;
  readonly adapter: readonly string[];
  readonly revision?: string | undefined;
}
export interface LoadedAdapters {
  readonly base: LanguageModel;
  readonly peft: PeftModel<LanguageModel>;
  /** Names under which the folders are loaded, in the order given. */
  readonly names: readonly string[];
  /** The one with most tokens among the adapters' and the model's, or null. */
  readonly tokenizer: Tokenizer | null;
}

/** Loads a base and several adapters on it; a table with fewer rows than their tokenizers have tokens grows first. */
export async function loadAdapters(flags: AdaptersFlags, output: Output): Promise<LoadedAdapters> {
  await chooseBackend(flags);
  const names = namesOf(flags.adapter);
  const tokenizers = await Promise.all(flags.adapter.map(tokenizerOf));
  const folder = await modelFolder(flags.model, output, flags.revision);
  const all = [await tokenizerOf(folder), ...tokenizers].filter((t) => t !== null);
  const tokenizer = all.reduce<Tokenizer | null>((most, t) => (most && most.vocabSize >= t.vocabSize ? most : t), null);
  const base = await loadBase(folder, output);
  if (tokenizer && tokenizer.vocabSize > base.config.vocab_size) base.resizeTokenEmbeddings(tokenizer.vocabSize);

  const onWarning = ({ message }: { message: string }): void => output.note(message);
  let peft: PeftModel<LanguageModel> | undefined;
  for (const [i, dir] of flags.adapter.entries()) {
    try {
      if (peft) await peft.loadAdapter(dir, names[i]!);
      else peft = await PeftModel.fromPretrained(base, dir, { adapterName: names[i]!, onWarning });
    } catch (error) {
      const isConfig = error instanceof ConfigError || error instanceof TargetError;
      throw isConfig ? new CliError(`${dir}/adapter_config.json: ${error.message}`) : error;
    }
    if (tokenizers[i]) checkTokens(dir, tokenizers[i], tokenizer!, tokensOf(peft.peftConfig[names[i]!]!));
  }
  return { base, peft: peft!, names, tokenizer };
}

/** The last part of each folder's path, without dots, numbered where that is not unique; never "default". */
function namesOf(dirs: readonly string[]): string[] {
  const names: string[] = [];
  for (const dir of dirs) {
    const name = basename(resolve(dir)).replaceAll(".", "_") || "adapter";
    let unique = name === "__base__" ? "base" : name;
    for (let n = 2; names.includes(unique) || unique === "default"; n++) unique = `${name}-${n}`;
    names.push(unique);
  }
  return names;
}

/** An adapter's ids must mean in the tokenizer that is kept what they meant in its own. */
function checkTokens(dir: string, own: Tokenizer, kept: Tokenizer, ids: readonly number[]): void {
  const id = ids.find((i) => own.idToToken(i) !== kept.idToToken(i));
  if (id === undefined) return;
  const [here, there] = [own, kept].map((t) => JSON.stringify(t.idToToken(id)));
  throw new CliError(
    `${dir}: its token ${id} must be the one of the other adapters, got ${here} and ${there}; train them with one tokenizer`,
  );
}
