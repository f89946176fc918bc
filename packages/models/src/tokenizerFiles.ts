import { applyEdits, modify } from "jsonc-parser";

/** A token to add, as in tokenizer.json; flags that are absent are false, `normalized` is the opposite of `special`. */
export interface AddedTokenSpec {
  readonly content: string;
  readonly special?: boolean;
  readonly lstrip?: boolean;
  readonly rstrip?: boolean;
  readonly normalized?: boolean;
}

interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly single_word: boolean;
  readonly lstrip: boolean;
  readonly rstrip: boolean;
  readonly normalized: boolean;
  readonly special: boolean;
}

/** The parts of tokenizer.json that adding tokens looks at. */
export interface TokenizerDocument {
  readonly added_tokens?: readonly AddedToken[];
  readonly model: { readonly vocab: Readonly<Record<string, number>> | readonly (readonly [string, number])[] };
}

/**
 * The text of tokenizer.json with tokens added, and their ids, as the tokenizers library gives them: a known token keeps its id and
 * takes the new flags, others get the next free ids. All other bytes of the text stay.
 */
export function addTokens(
  text: string,
  specs: readonly AddedTokenSpec[],
): { readonly text: string; readonly ids: number[] } {
  const document = JSON.parse(text) as TokenizerDocument;
  const { vocab } = document.model;
  const modelIds = new Map<string, number>(
    isPieces(vocab) ? vocab.map(([piece], id) => [piece, id]) : Object.entries(vocab),
  );
  const added = new Map((document.added_tokens ?? []).map((token) => [token.content, token]));
  const ids = specs.map(({ content, special = false, lstrip = false, rstrip = false, normalized = !special }) => {
    const id = added.get(content)?.id ?? modelIds.get(content) ?? nextId(added, modelIds.size);
    added.set(content, { id, content, single_word: false, lstrip, rstrip, normalized, special });
    return id;
  });
  const sorted = [...added.values()].toSorted((a, b) => a.id - b.id);
  const edits = modify(text, ["added_tokens"], sorted, FORMAT);
  return { text: applyEdits(text, edits), ids };
}

/**
 * The text of tokenizer_config.json with the tokens of these ids in its `added_tokens_decoder`, where it has one: transformers 4
 * writes it beside tokenizer.json, and slow tokenizers read nothing else. All other bytes of the text stay.
 */
export function addToConfig(config: string, document: string, ids: readonly number[]): string {
  const decoder = (JSON.parse(config) as { added_tokens_decoder?: Readonly<Record<string, unknown>> })
    .added_tokens_decoder;
  if (!decoder) return config;
  const { added_tokens = [] } = JSON.parse(document) as TokenizerDocument;
  let text = config;
  for (const { id, ...token } of added_tokens.filter(({ id }) => ids.includes(id))) {
    text = applyEdits(text, modify(text, ["added_tokens_decoder", String(id)], token, FORMAT));
  }
  return text;
}

const FORMAT = { formattingOptions: { insertSpaces: true, tabSize: 2 } };

function nextId(added: ReadonlyMap<string, AddedToken>, modelSize: number): number {
  return Math.max(modelSize, ...[...added.values()].map(({ id }) => id + 1));
}

const isPieces = (vocab: TokenizerDocument["model"]["vocab"]): vocab is readonly (readonly [string, number])[] =>
  Array.isArray(vocab);
