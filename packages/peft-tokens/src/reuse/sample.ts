import type { HostMatrix } from "@neolog/models";

/** One row of a batch, from where its padding ends to the last position that predicts what counts; empty where none does. */
export interface Sample {
  /** [n] */
  readonly ids: Int32Array;
  /** [n] */
  readonly positions: Int32Array;
  /** What each position predicts, −100 where that counts for nothing. [n] */
  readonly targets: Int32Array;
  /** The first position whose token is in effect other than the table's; n where none is. */
  readonly prefix: number;
}

/** Matrices of one size. */
export interface Rows {
  readonly ids: HostMatrix;
  readonly positions: Int32Array;
  readonly targets: Int32Array;
  /** 0 at padding; null where there is none. */
  readonly mask: Int32Array | null;
}

/** The rows of a batch, or why they are not samples of one text each. */
export function samplesOf({ ids, positions, targets, mask }: Rows, trained: ReadonlySet<number>): Sample[] | string {
  const samples: Sample[] = [];
  for (let row = 0; row < ids.rows; row++) {
    const from = row * ids.columns;
    const target = targets.subarray(from, from + ids.columns);
    const end = 1 + target.findLastIndex((t) => t !== -100);
    const own = mask?.subarray(from, from + end);
    const start = Math.max(0, own ? own.findIndex((flag) => flag !== 0) : 0);
    if (own?.subarray(start).includes(0)) return "attention_mask has a gap in a row, or labels count at its padding";
    if (target.subarray(0, start).some((t) => t !== -100)) return "labels count at padding";
    const sample = {
      ids: ids.values.slice(from + start, from + end),
      positions: positions.slice(from + start, from + end),
      targets: target.slice(start, end),
    };
    if (sample.positions.some((p, i) => i > 0 && p !== sample.positions[i - 1]! + 1))
      return "a row holds several texts";
    const first = sample.ids.findIndex((id) => trained.has(id));
    samples.push({ ...sample, prefix: first < 0 ? sample.ids.length : first });
  }
  return samples;
}

/** The same text at the same positions, up to its prefix. */
export const prefixKey = ({ ids, positions, prefix }: Sample): string =>
  `${positions[0]} ${ids.subarray(0, prefix).join(" ")}`;

/** The same predictions from it. */
export const targetsKey = ({ targets, prefix }: Sample): string => targets.subarray(0, prefix).join(" ");

/** Places of the targets that count. */
export const countedIn = (targets: Int32Array): Int32Array =>
  Int32Array.from(targets.keys()).filter((i) => targets[i] !== -100);
