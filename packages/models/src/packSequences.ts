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
 * Texts of any lengths one after the other, as transformers' DataCollatorWithFlattening: in one row without padding, or in as few
 * rows of at most `maxLength` tokens as best fit finds, longest text first (Johnson 1973), where what stays free at the end of a row
 * is a text that nobody sees. Labels are the ids where a text has none; no text sees another. Throws ShapeError.
 */
export function packSequences(
  texts: readonly Sequence[],
  { maxLength = Infinity }: { readonly maxLength?: number | undefined } = {},
): PackedSequences {
  for (const text of texts) check(text, maxLength);
  const bins = maxLength === Infinity ? [texts] : bestFit(texts, maxLength);
  const columns = Math.max(0, ...bins.map((bin) => bin.reduce((sum, { input_ids }) => sum + input_ids.length, 0)));
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
    // an id of the row itself, so that free places touch no row of the table that the texts do not
    input_ids.values.fill(input_ids.values[at - 1]!, at, end);
    for (let t = 0; at + t < end; t++) position_ids.values[at + t] = t;
  });
  return { input_ids, position_ids, labels };
}

function check({ input_ids, attention_mask, labels = input_ids }: Sequence, maxLength: number): void {
  const given = [[input_ids.length], [labels.length]] as const;
  if (labels.length !== input_ids.length)
    throw new ShapeError("packSequences", "a text needs a label for each id", ...given);
  if (input_ids.length > maxLength)
    throw new ShapeError("packSequences", `texts must have at most ${maxLength} tokens`, [input_ids.length]);
  if (attention_mask && Array.from(attention_mask).includes(0))
    throw new ShapeError("packSequences", "texts must come without padding: leave out masked positions", [
      input_ids.length,
    ]);
}

function bestFit(texts: readonly Sequence[], maxLength: number): Sequence[][] {
  const bins: { texts: Sequence[]; free: number }[] = [];
  for (const text of texts.toSorted((a, b) => b.input_ids.length - a.input_ids.length)) {
    const need = text.input_ids.length;
    let best: (typeof bins)[number] | null = null;
    for (const bin of bins) if (bin.free >= need && (best === null || bin.free < best.free)) best = bin;
    if (best === null) bins.push((best = { texts: [], free: maxLength }));
    best.texts.push(text);
    best.free -= need;
  }
  return bins.map((bin) => bin.texts);
}
