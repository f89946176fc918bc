import { type AttentionOptions, ShapeError, type Tensor, cat, slice, transpose } from "@neolog/tensor";
import { attendBehind } from "./attendBehind.ts";
import { type HostMatrix, causalMasks } from "./inputs.ts";
import type { PositionCache } from "./kvCache.ts";

/** One of several texts in a row. */
export interface RaggedText {
  /** How many positions of it the row holds. */
  readonly length: number;
  /** What is cached of the positions before them; null where there are none. */
  readonly past: PositionCache | null;
}

/**
 * Texts of any lengths one after the other in one row, each behind a cache of its own: all that is computed for each position alone
 * is one product over the positions of all of them, and nothing is padded. Give it to a model as `past_key_values`, with `input_ids`
 * and `position_ids` [1, sum of lengths] and no mask.
 */
export class RaggedPositions {
  readonly #texts: readonly (RaggedText & { readonly start: number; readonly end: number })[];
  readonly #maskOf: readonly ((window: number | null) => Tensor)[];

  constructor(texts: readonly RaggedText[]) {
    let end = 0;
    this.#texts = texts.map((text) => ({ ...text, start: end, end: (end += text.length) }));
    this.#maskOf = texts.map(({ length: columns, past }) =>
      causalMasks({ values: new Int32Array(columns), rows: 1, columns }, past?.length ?? 0, null),
    );
  }

  /** Throws ShapeError where the inputs are not one row of all texts, or have a mask. */
  check({ rows, columns }: HostMatrix, mask: HostMatrix | null): void {
    const all = this.#texts.at(-1)?.end ?? 0;
    const given = [rows, columns];
    if (rows !== 1 || columns !== all)
      throw new ShapeError("ragged positions", "input_ids must be one row of all texts", [1, all], given);
    if (mask) throw new ShapeError("ragged positions", "texts have no padding; leave attention_mask out", given);
  }

  /** Makes the masks that layers with this window need, for the scope around this call; → that of the first text. */
  maskOf(window: number | null): Tensor {
    return this.#maskOf.map((maskOf) => maskOf(window))[0]!;
  }

  /** Each text to itself and to what is cached of it: q [1, H, T, D]; k, v [1, K, T, D] → [1, H, T, D] */
  attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layer: number,
    window: number | null,
    options: AttentionOptions = {},
  ): Tensor {
    const each = this.#texts.map(({ start, end, past }, text) => {
      const own = (x: Tensor): Tensor => slice(x, 2, start, end);
      return attendBehind(past, own(q), own(k), own(v), { layer, window, mask: this.#maskOf[text]!(window) }, options);
    });
    // where projections left the queries of a position together, so are its results, and nothing is moved but whole texts
    return transpose(
      cat(
        each.map((y) => transpose(y, 1, 2)),
        1,
      ),
      1,
      2,
    );
  }
}
