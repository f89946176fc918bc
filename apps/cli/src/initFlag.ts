import type { Tokenizer } from "@neolog/models";
import type { InitPolicy } from "@neolog/peft-tokens";
import { InvalidArgumentError } from "commander";
import { CliError } from "./errors.ts";

/** How --init says that rows start; ids and text are looked up once there is a tokenizer. */
export type InitFlag =
  | { readonly kind: "original" | "mean" | "random" }
  | { readonly kind: "copy" | "description"; readonly text: string };

const FORMS = '"original", "mean", "random", "copy: <token or id>" or "description: <text>"';

/** `mean`, `copy: dog`, `description: a small furry animal`. */
export function initFlag(flag: string): InitFlag {
  const name = flag.trim();
  if (name === "original" || name === "mean" || name === "random") return { kind: name };
  const [, kind, text] = /^(copy|description):\s*(.*\S)\s*$/s.exec(flag) ?? [];
  if (kind === "copy" || kind === "description") return { kind, text: text! };
  throw new InvalidArgumentError(`It must be ${FORMS}.`);
}

/** The policy for rows of `ids`, all of which start alike. */
export function initPolicy(flag: InitFlag, ids: readonly number[], tokenizer: Tokenizer | null): InitPolicy {
  switch (flag.kind) {
    case "copy":
      return { kind: "copy", from: ids.map(() => idOf(flag.text, tokenizer)) };
    case "description": {
      if (!tokenizer) throw new CliError("--init description: needs the model's tokenizer.json, found none");
      const tokens = tokenizer.encode(flag.text, { addSpecialTokens: false });
      return { kind: "description", tokens: ids.map(() => tokens) };
    }
    default:
      return flag.kind;
  }
}

/** A token by its name in the vocabulary, by the text that it alone stands for, or by its id. */
function idOf(text: string, tokenizer: Tokenizer | null): number {
  const named = tokenizer?.tokenToId(text);
  if (named !== undefined) return named;
  if (/^\d+$/.test(text)) return Number(text);
  const spelled = tokenizer?.encode(text, { addSpecialTokens: false }) ?? [];
  if (spelled.length === 1) return spelled[0]!;
  const found = tokenizer ? `${spelled.length} tokens` : "no tokenizer.json";
  throw new CliError(`--init copy: must name one token or its id, got "${text}" (${found})`);
}
