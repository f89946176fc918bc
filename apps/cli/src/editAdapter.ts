import { openFolder, readJsonObject } from "@neolog/checkpoint";
import { readdir, rename, rmdir } from "node:fs/promises";
import { join } from "node:path";
import { CliError } from "./errors.ts";
import { type LoadedAdapters, loadAdapters } from "./loadAdapters.ts";
import type { Output } from "./output.ts";
import { checkTarget, publish } from "./publish.ts";

export interface EditFlags {
  readonly model?: string | undefined;
  readonly adapter: readonly string[];
  readonly out: string;
  readonly revision?: string | undefined;
}

/** The base that is asked for, else the one that the first adapter names. Throws CliError where there is neither. */
export async function baseOf({ model, adapter: [first] }: EditFlags): Promise<string> {
  if (model !== undefined) return model;
  const { base_model_name_or_path: named } = await readJsonObject(await openFolder(first!), "adapter_config.json");
  if (typeof named === "string") return named;
  throw new CliError(`${first}/adapter_config.json: must name the base model, or --model must, found neither`);
}

/**
 * Loads a base with adapters, lets `edit` make "default" of them or say which one is the result, and writes that one into --out
 * with the tokenizer. Returns the names of the files.
 */
export async function editAdapters(
  flags: EditFlags,
  output: Output,
  edit: (loaded: LoadedAdapters) => Promise<string> | string,
): Promise<string[]> {
  const model = await baseOf(flags);
  await checkTarget(flags.out, model, ...flags.adapter);
  const loaded = await loadAdapters({ ...flags, model }, output);
  const result = await edit(loaded);
  const { peft, tokenizer } = loaded;
  await publish(flags.out, "adapter_config.json", async (dir) => {
    await peft.savePretrained(dir, { selectedAdapters: [result] });
    if (result !== "default") await lift(dir, result);
    await tokenizer?.savePretrained(dir);
  });
  return (await readdir(flags.out)).toSorted();
}

/** Any adapter but "default" is written into a folder of its name; here it is the only one. */
async function lift(dir: string, name: string): Promise<void> {
  for (const file of await readdir(join(dir, name))) await rename(join(dir, name, file), join(dir, file));
  await rmdir(join(dir, name));
}
