/** The ids that a vocabulary is to keep do not make one. */
export class VocabularyError extends Error {
  override readonly name = "VocabularyError";
  /** The ids at fault. */
  readonly ids: readonly number[];

  constructor(message: string, ids: readonly number[]) {
    super(message);
    this.ids = ids;
  }
}

type Vocab = Readonly<Record<string, number>> | readonly (readonly [string, number])[];
type Merge = string | readonly [string, string];
interface Token {
  readonly id: number;
  readonly content: string;
}
interface Document {
  readonly added_tokens?: readonly Token[];
  readonly post_processor?: unknown;
  readonly model: {
    readonly type?: string;
    readonly vocab: Vocab;
    readonly merges?: readonly Merge[];
    readonly unk_token?: string | null;
    readonly unk_id?: number | null;
  };
}

/** The two parts that a merge joins. */
const partsOf = (merge: Merge): readonly [string, string] =>
  typeof merge === "string" ? (merge.split(" ") as [string, string]) : merge;

const piecesOf = (vocab: Vocab): [string, number][] =>
  Array.isArray(vocab) ? vocab.map(([piece], id): [string, number] => [piece as string, id]) : Object.entries(vocab);

/** Old id → new id, its position in `keepIds`. Throws VocabularyError where an id is named twice or is none of `count`. */
export function positionsOf(keepIds: readonly number[], count: number): Map<number, number> {
  const wrong = keepIds.filter((id, i) => !Number.isInteger(id) || id < 0 || id >= count || keepIds.indexOf(id) < i);
  if (keepIds.length === 0 || wrong.length > 0) {
    const given = keepIds.length === 0 ? "none" : wrong.join(", ");
    throw new VocabularyError(`trim: ids to keep must be different ones in [0, ${count}), got ${given}`, wrong);
  }
  return new Map(keepIds.map((id, position) => [id, position]));
}

/**
 * `ids` and, behind them, those of the pieces that a tokenizer builds them from: with these kept as well, text of kept tokens is
 * split as before.
 */
export function withPieces(text: string, ids: readonly number[]): number[] {
  const { model } = JSON.parse(text) as Document;
  const idOf = new Map(piecesOf(model.vocab));
  const parts = new Map<string, Set<string>>();
  for (const merge of model.merges ?? []) {
    const [left, right] = partsOf(merge);
    const whole = left + right;
    parts.set(whole, (parts.get(whole) ?? new Set()).add(left).add(right));
  }
  const pieceOf = new Map([...idOf].map(([piece, id]) => [id, piece]));
  const kept = new Set(ids);
  for (const id of kept) {
    for (const part of parts.get(pieceOf.get(id) ?? "") ?? []) kept.add(idOf.get(part)!); // a Set's loop sees what it adds
  }
  return [...kept];
}

/**
 * tokenizer.json with the kept tokens alone; `positions` says what id each has now. Text of kept tokens is split as before. Throws
 * VocabularyError where a kept token is built from pieces that are not kept, where the unknown token or one that the post-processor
 * adds is not, or where a vocabulary in order cannot have its tokens so.
 */
export function trimTokenizer(text: string, positions: ReadonlyMap<number, number>): string {
  const document = JSON.parse(text) as Document;
  const { model } = document;
  const missing = withPieces(text, [...positions.keys()]).filter((id) => !positions.has(id));
  if (missing.length > 0) {
    throw new VocabularyError(
      `trim: pieces that kept tokens are built from must be kept too, left out ${missing.join(", ")}; withPieces adds them`,
      missing,
    );
  }
  const pieces = piecesOf(model.vocab);
  const idOf = new Map([...pieces, ...(document.added_tokens ?? []).map(({ content, id }) => [content, id] as const)]);
  const needed = [model.unk_token, typeof model.unk_id === "number" ? pieces[model.unk_id]?.[0] : null];
  for (const token of needed) if (token != null) mustKeep(idOf.get(token), "the unknown token", positions);

  const kept = pieces
    .filter(([, id]) => positions.has(id))
    .map(([piece, id]) => [piece, positions.get(id)!] as const)
    .toSorted(([, a], [, b]) => a - b);
  const names = new Set(kept.map(([piece]) => piece));
  const isKept = (merge: Merge): boolean => {
    const [left, right] = partsOf(merge);
    return names.has(left) && names.has(right) && names.has(left + right);
  };
  return JSON.stringify(
    {
      ...document,
      added_tokens: (document.added_tokens ?? [])
        .filter(({ id }) => positions.has(id))
        .map((token) => ({ ...token, id: positions.get(token.id)! }))
        .toSorted((a, b) => a.id - b.id),
      post_processor: withIds(document.post_processor ?? null, positions),
      model: {
        ...model,
        vocab: Array.isArray(model.vocab) ? inOrder(model.vocab, kept, positions) : Object.fromEntries(kept),
        ...(model.merges ? { merges: model.merges.filter(isKept) } : {}),
        ...(typeof model.unk_id === "number" ? { unk_id: positions.get(model.unk_id)! } : {}),
      },
    },
    null,
    2,
  );
}

/** tokenizer_config.json whose added_tokens_decoder has the new ids. */
export function trimTokenizerConfig(text: string, positions: ReadonlyMap<number, number>): string {
  const config = JSON.parse(text) as Record<string, unknown>;
  const decoder = config["added_tokens_decoder"];
  if (typeof decoder !== "object" || decoder === null) return text;
  const entries = Object.entries(decoder).flatMap(([id, token]) => {
    const position = positions.get(Number(id));
    return position === undefined ? [] : [[String(position), token as unknown] as const];
  });
  return JSON.stringify({ ...config, added_tokens_decoder: Object.fromEntries(entries) }, null, 2);
}

/** The entries [piece, score] of a vocabulary whose ids are its positions. */
function inOrder(
  vocab: readonly (readonly [string, number])[],
  kept: readonly (readonly [string, number])[],
  positions: ReadonlyMap<number, number>,
): (readonly [string, number])[] {
  const gap = kept.findIndex(([, position], i) => position !== i);
  if (gap >= 0) {
    throw new VocabularyError(
      "trim: a vocabulary whose ids are its positions must keep its own tokens first; put added ones behind them",
      [...positions.keys()].slice(gap, gap + 1),
    );
  }
  const entries = vocab.flatMap((entry, id) => (positions.has(id) ? [[positions.get(id)!, entry] as const] : []));
  return entries.toSorted(([a], [b]) => a - b).map(([, entry]) => entry);
}

function mustKeep(id: number | undefined, what: string, positions: ReadonlyMap<number, number>): number {
  const position = id === undefined ? undefined : positions.get(id);
  if (position !== undefined) return position;
  throw new VocabularyError(`trim: ${what} (id ${id}) must be kept`, id === undefined ? [] : [id]);
}

/** A post-processor with new ids: templates list them as "ids", BERT's and RoBERTa's as ["[SEP]", 102]. */
function withIds(processor: unknown, positions: ReadonlyMap<number, number>): unknown {
  const what = "a token that the post-processor adds";
  if (Array.isArray(processor)) {
    const [token, id] = processor as unknown[];
    const isPair = processor.length === 2 && typeof token === "string" && typeof id === "number";
    return isPair ? [token, mustKeep(id, what, positions)] : processor.map((item) => withIds(item, positions));
  }
  if (typeof processor !== "object" || processor === null) return processor;
  return Object.fromEntries(
    Object.entries(processor).map(([key, value]) => [
      key,
      key === "ids" && Array.isArray(value)
        ? value.map((id: number) => mustKeep(id, what, positions))
        : withIds(value, positions),
    ]),
  );
}
