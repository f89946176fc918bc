import { type LabelledBatch, shiftedTargets, toHost, toHostLike } from "@neolog/models";
import type { RowsAlone } from "./conditions.ts";
import { type Sample, samplesOf } from "./sample.ts";

/** A row is split where its prefix is at least this part of it: running it in two costs more than a shorter one saves. */
const WORTH = 1 / 8;

export const isSplit = ({ ids, prefix }: Sample): boolean => prefix >= ids.length * WORTH;

/** What of a batch can change. */
export interface Plan extends RowsAlone {
  readonly samples: readonly Sample[];
}

/** The samples of a batch, or why they are not computed apart, in words. */
export function planOf(alone: RowsAlone, batch: LabelledBatch): Plan | string {
  if (batch.past_key_values) return "positions are cached already";
  const ids = toHost("input_ids", batch.input_ids);
  const { rows, columns } = ids;
  const targets = shiftedTargets(toHostLike("labels", batch.labels, rows, columns));
  const mask = batch.attention_mask ? toHostLike("attention_mask", batch.attention_mask, rows, columns).values : null;
  const positions = alone.model.positionIds(batch);
  if (positions.some((position) => position >= alone.longest))
    return `angles of rotation depend on the length of rows, beyond ${alone.longest} positions`;
  const trained = new Set(alone.input.flatMap(({ indices }) => [...indices]));
  const samples = samplesOf({ ids, positions, targets, mask }, trained);
  return typeof samples === "string" ? samples : { ...alone, samples };
}
