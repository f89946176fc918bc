import { type FolderSource, openFolder, readText } from "@neolog/checkpoint";
import { Tokenizer } from "@neolog/models";
import type { AdaptableModel } from "./adaptable.ts";
import { ConfigError } from "./errors.ts";
import { growVocabulary } from "./grow.ts";
import type { LoadOptions } from "./load.ts";
import { PeftModel } from "./model.ts";
import { readConfig } from "./readFolder.ts";
import { vocabSizeOf } from "./tables.ts";
import { type OnWarning, toConsole } from "./warnings.ts";

export interface AutoPeftOptions<M extends AdaptableModel> extends LoadOptions {
  /** Loads the base that the adapter's config names. */
  readonly resolveBase: (nameOrPath: string, revision: string | null) => Promise<M>;
  readonly adapterName?: string;
  readonly onWarning?: OnWarning;
}

/**
 * The base that an adapter folder names, with the adapter on it. Where the folder holds a tokenizer of more tokens than the base has
 * rows, the table grows first. Throws ConfigError ARGUMENT where no base is named.
 */
export async function autoPeftModel<M extends AdaptableModel>(
  source: FolderSource,
  { resolveBase, onWarning = toConsole, ...options }: AutoPeftOptions<M>,
): Promise<PeftModel<M>> {
  const config = options.config ?? (await readConfig(source, options.subfolder, onWarning));
  const { base_model_name_or_path, revision } = config;
  if (base_model_name_or_path === null) {
    throw new ConfigError(
      "ARGUMENT",
      "autoPeftModel: base_model_name_or_path must name the base, got null; load it and use PeftModel.fromPretrained",
    );
  }
  const model = await resolveBase(base_model_name_or_path, revision);
  const tokens = await tokensBeside(source);
  if (tokens > (vocabSizeOf({ root: model }) ?? Infinity)) growVocabulary(model, tokens);
  return PeftModel.fromPretrained(model, source, { ...options, config, onWarning });
}

/** How many tokens the folder's tokenizer has; 0 without one. */
async function tokensBeside(source: FolderSource): Promise<number> {
  const folder = await openFolder(source);
  if (!(await folder.has("tokenizer.json"))) return 0;
  return new Tokenizer(await readText(folder, "tokenizer.json"), "{}", `${folder.name}/tokenizer.json`).vocabSize;
}
