import { ShapeError } from "@neolog/tensor";
import type { HostMatrix } from "./inputs.ts";
import type { Sequence } from "./padSequences.ts";

/** Rows that hold several texts each; what `forward` of a causal language model takes. */
export interface PackedSequences {
  /** [R, T] */
  readonly input_ids: HostMatrix;
  /** [R, T]; each text begins again at 0. */
  readonly position_ids: HostMatrix;
  /** [R, T]; −100 at the first token of each text, which nothing before it predicts. */
  readonly labels: HostMatrix;
}

/**
 * Texts of any lengths one after the other, as transformers' DataCollatorWithFlattening: in one row without padding, or in `rows` rows
 * about equally long, each text where least stands so far, the longest first (Graham 1969, https://doi.org/10.1137/0117039). What stays
 * free at the end of a row are texts of one token that predict nothing. Labels are the ids where a text has none; no text sees another.
 * Throws ShapeError.
 */
export function packSequences(
  texts: readonly Sequence[],
  { rows = 1 }: { readonly rows?: number | undefined } = {},
): PackedSequences {
  texts.forEach(check);
  const bins = rows === 1 ? [texts] : evenly(texts, rows);
  const columns = Math.max(0, ...bins.map(lengthOf));
  if (columns === 0) throw new ShapeError("packSequences", "at least one text with a token is needed", [texts.length]);
  const [input_ids, position_ids, labels] = Array.from({ length: 3 }, (): HostMatrix => {
    return { values: new Int32Array(bins.length * columns), rows: bins.length, columns };
  }) as [HostMatrix, HostMatrix, HostMatrix];
  labels.values.fill(-100);
  bins.forEach((bin, row) => {
    let at = row * columns;
    const end = at + columns;
    for (const text of bin) {
      input_ids.values.set(text.input_ids, at);
      labels.values.set(text.labels ?? text.input_ids, at);
      labels.values[at] = -100;
      for (let t = 0; t < text.input_ids.length; t++) position_ids.values[at + t] = t;
      at += text.input_ids.length;
    }
    // an id of the row itself, so that free places touch no row of the table that the texts do not; position 0 begins a text
    input_ids.values.fill(input_ids.values[at - 1]!, at, end);
  });
  return { input_ids, position_ids, labels };
}

const lengthOf = (bin: readonly Sequence[]): number => bin.reduce((sum, { input_ids }) => sum + input_ids.length, 0);

function check({ input_ids, attention_mask, labels = input_ids }: Sequence): void {
  const given = [[input_ids.length], [labels.length]] as const;
  if (labels.length !== input_ids.length)
    throw new ShapeError("packSequences", "a text needs a label for each id", ...given);
  if (attention_mask && Array.from(attention_mask).includes(0))
    throw new ShapeError("packSequences", "texts must come without padding: leave out masked positions", [
      input_ids.length,
    ]);
}

/** As many lists as asked for, but none that is empty. */
function evenly(texts: readonly Sequence[], rows: number): Sequence[][] {
  if (!(Number.isSafeInteger(rows) && rows > 0))
    throw new RangeError(`packSequences: rows must be a positive integer, got ${rows}`);
  const bins = Array.from({ length: Math.min(rows, texts.length) }, () => ({ texts: [] as Sequence[], length: 0 }));
  for (const text of texts.toSorted((a, b) => b.input_ids.length - a.input_ids.length)) {
    const shortest = bins.reduce((a, b) => (b.length < a.length ? b : a));
    shortest.texts.push(text);
    shortest.length += text.input_ids.length;
  }
  return bins.map((bin) => bin.texts);
}
