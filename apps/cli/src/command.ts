import { Command } from "@commander-js/extra-typings";
import { InvalidArgumentError } from "commander";

/** A command with the flags that all share and examples under its help. */
export function command(name: string, description: string, examples: readonly string[]) {
  return new Command(name)
    .description(description)
    .option("--json", "print one JSON object on stdout, all else on stderr")
    .option("--quiet", "print results and errors only")
    .addHelpText("after", `\nExamples:\n${examples.map((line) => `  $ neolog ${line}`).join("\n")}`);
}

export const MODEL = [
  "--model <dir>",
  "folder of the model: config.json, model.safetensors, tokenizer.json; or org/name of the Hugging Face Hub",
] as const;
export const REVISION = ["--revision <name>", "branch, tag or commit of a model of the Hub (main)"] as const;
export const ADAPTER = ["--adapter <dir>", "folder of an adapter that neolog or PEFT wrote"] as const;
/** Given again for each further adapter. */
export const ADAPTERS = [
  "--adapter <dir>",
  "folder of an adapter that neolog or PEFT wrote; give it again for each further one",
  (dir: string, before: readonly string[] = []): string[] => [...before, dir],
] as const;
export const DATA = ["--data <file.jsonl>", "rows of text, prompt and completion, messages, or input_ids"] as const;
export const NO_CACHE = [
  "--no-cache",
  "neither keep the ids of a large file, in neolog/ of the Hugging Face cache's folder, nor use kept ones",
] as const;
export const BACKEND = [
  "--backend <name>",
  "wasm, cpu, gpu (needs @neolog/gpu), or reference (slow, float64); by default wasm where it runs, else cpu",
] as const;
export const ALLOW_SOFTWARE = [
  "--allow-software",
  "take a GPU that computes in software too, for tests; it is slower than wasm",
] as const;

const number =
  (what: string, holds: (value: number) => boolean) =>
  (text: string): number => {
    const value = text.trim() === "" ? NaN : Number(text);
    if (!holds(value)) throw new InvalidArgumentError(`It must be ${what}.`);
    return value;
  };

export const positiveInteger = number("a whole number, 1 or more", (x) => Number.isSafeInteger(x) && x >= 1);
export const nonNegativeInteger = number("a whole number, 0 or more", (x) => Number.isSafeInteger(x) && x >= 0);
export const positive = number("a number above 0", (x) => x > 0 && x < Infinity);
export const nonNegative = number("a number, 0 or more", (x) => x >= 0 && x < Infinity);

export const probability = number("a number above 0, at most 1", (x) => x > 0 && x <= 1);

/** Gathers the values of a flag that may be given again. */
export function collected(text: string, before: readonly string[] = []): string[] {
  if (text === "") throw new InvalidArgumentError("It must not be empty.");
  return [...before, text];
}

/** `403,407` → ids. */
export function idList(text: string): number[] {
  return distinct(text.split(",").map((item) => nonNegativeInteger(item)));
}

/** `<wug>,<dax>` → tokens; blanks belong to a token. */
export function tokenList(text: string): string[] {
  const tokens = text.split(",");
  if (tokens.includes("")) throw new InvalidArgumentError("Tokens must not be empty.");
  return distinct(tokens);
}

function distinct<T>(items: T[]): T[] {
  const again = items.find((item, i) => items.indexOf(item) < i);
  if (again !== undefined) throw new InvalidArgumentError(`Each must be named once, got ${String(again)} again.`);
  return items;
}
