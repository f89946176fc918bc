import { ShapeError } from "@neolog/tensor";

/** One row that holds several texts; what `forward` takes. */
export interface PackedSequences {
  /** [1, T] */
  readonly input_ids: number[][];
  /** [1, T]; each text begins again at 0. */
  readonly position_ids: number[][];
  /** [1, T]; −100 at the first token of each text, which nothing before it predicts. */
  readonly labels: number[][];
}

/**
 * Texts of any lengths one after the other in a row, without padding, as transformers' DataCollatorWithFlattening; labels are the ids
 * where a text has none. No text sees another. Throws ShapeError.
 */
export function packSequences(
  texts: readonly { readonly input_ids: readonly number[]; readonly labels?: readonly number[] | undefined }[],
): PackedSequences {
  for (const { input_ids, labels = input_ids } of texts) {
    if (labels.length === input_ids.length) continue;
    throw new ShapeError("packSequences", "a text needs a label for each id", [input_ids.length], [labels.length]);
  }
  return {
    input_ids: [texts.flatMap(({ input_ids }) => input_ids)],
    position_ids: [texts.flatMap(({ input_ids }) => input_ids.map((_, t) => t))],
    labels: [texts.flatMap(({ input_ids, labels = input_ids }) => labels.map((id, t) => (t === 0 ? -100 : id)))],
  };
}
