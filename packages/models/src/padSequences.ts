import { ShapeError } from "@neolog/tensor";
import type { HostMatrix } from "./inputs.ts";

/** A text as ids. */
export interface Sequence {
  readonly input_ids: ArrayLike<number>;
  /** As long as input_ids, 0 at padding; all 1 where absent. */
  readonly attention_mask?: ArrayLike<number> | undefined;
  /** What is to be predicted, −100 for nothing; the ids where absent. Of another length for an encoder-decoder. */
  readonly labels?: ArrayLike<number> | undefined;
}

/** A batch of texts in rows, padded on the right; what `forward` takes. */
export interface PaddedSequences {
  /** [B, the longest] */
  readonly input_ids: HostMatrix;
  /** The same size: 0 at padding. */
  readonly attention_mask: HostMatrix;
  /** [B, the longest labels]: −100 at padding. */
  readonly labels: HostMatrix;
}

/** Texts as one batch, padded on the right to the longest; padding is neither attended to nor predicted. Throws ShapeError. */
export function padSequences(texts: readonly Sequence[], { padTokenId = 0 } = {}): PaddedSequences {
  for (const { input_ids, attention_mask } of texts) {
    if (attention_mask === undefined || attention_mask.length === input_ids.length) continue;
    const given = [[input_ids.length], [attention_mask.length]] as const;
    throw new ShapeError("padSequences", "attention_mask must be as long as input_ids", ...given);
  }
  const input_ids = padded(
    texts.map((text) => text.input_ids),
    padTokenId,
  );
  const labels = padded(
    texts.map((text) => text.labels ?? text.input_ids),
    -100,
  );
  const attention_mask = { ...input_ids, values: new Int32Array(input_ids.values.length) };
  texts.forEach((text, row) => {
    const at = row * input_ids.columns;
    if (text.attention_mask) attention_mask.values.set(text.attention_mask, at);
    else attention_mask.values.fill(1, at, at + text.input_ids.length);
  });
  return { input_ids, attention_mask, labels };
}

function padded(lists: readonly ArrayLike<number>[], fill: number): HostMatrix {
  const rows = lists.length;
  const columns = lists.reduce((longest, { length }) => Math.max(longest, length), 0);
  if (columns === 0) throw new ShapeError("padSequences", "at least one text with a token is needed", [rows, columns]);
  const values = new Int32Array(rows * columns).fill(fill);
  lists.forEach((list, row) => values.set(list, row * columns));
  return { values, rows, columns };
}
