import { CheckpointError } from "@neolog/checkpoint";

interface Part {
  readonly type?: string;
  readonly behavior?: string;
  readonly invert?: boolean;
  readonly pattern?: { readonly String?: string; readonly Regex?: string };
  readonly content?: string;
  readonly normalizers?: readonly Part[];
  readonly pretokenizers?: readonly Part[];
}

/** The parts of tokenizer.json in which the encoder differs from Hugging Face's. */
interface CheckedDocument {
  readonly added_tokens?: readonly { readonly content: string; readonly single_word?: boolean }[] | null;
  readonly normalizer?: Part | null;
  readonly pre_tokenizer?: Part | null;
  readonly model?: {
    readonly type?: string;
    readonly byte_fallback?: boolean;
    readonly dropout?: number | null;
  } | null;
}

/**
 * Refuses what @huggingface/tokenizers reads but silently does otherwise than the tokenizers library. Throws CheckpointError
 * UNEXPECTED that names it.
 */
export function checkSupported(
  { added_tokens, normalizer, pre_tokenizer, model }: CheckedDocument,
  file: string,
): void {
  const refuse = (mustHold: string, found: string): never => {
    throw new CheckpointError("UNEXPECTED", `${file}: ${mustHold}, found ${found}`, { file });
  };
  const singleWord = added_tokens?.find((token) => token.single_word);
  if (singleWord) refuse("added tokens must not be single_word", `"${singleWord.content}"`);
  if (model?.type === "Unigram" && model.byte_fallback)
    refuse("a Unigram model must not fall back to bytes", "byte_fallback");
  if (model?.dropout) refuse("a model must give the same ids each time", `dropout ${model.dropout}`);
  for (const part of parts(pre_tokenizer, "pretokenizers")) {
    const { type, behavior = "Isolated", invert = false } = part;
    if (type === "Punctuation" && behavior !== "Isolated")
      refuse("Punctuation must have the behavior Isolated", behavior);
    if (type !== "Split" || neverMatches(part, normalizer)) continue;
    if (invert ? behavior !== "Removed" : behavior !== "Removed" && behavior !== "Isolated")
      refuse(`Split must have the behavior Removed${invert ? " where it is inverted" : " or Isolated"}`, behavior);
  }
}

/** True where the normalizer has replaced all that a Split looks for, as Gemma's does with spaces. */
const neverMatches = ({ pattern }: Part, normalizer: Part | null | undefined): boolean =>
  pattern?.String !== undefined &&
  parts(normalizer, "normalizers").some(
    ({ type, pattern: replaced, content }) =>
      type === "Replace" && replaced?.String === pattern.String && !content?.includes(pattern.String!),
  );

/** A part and, where it is a sequence, what it holds. */
function parts(part: Part | null | undefined, key: "normalizers" | "pretokenizers"): Part[] {
  if (!part) return [];
  return [part, ...(part[key] ?? []).flatMap((inner) => parts(inner, key))];
}
