import type { LabelledBatch, LanguageModel, SequenceDataset } from "@neolog/models";
import { padSequences } from "@neolog/models";
import { type PeftModel, ReusedLoss } from "@neolog/peft-tokens";
import type { Recipe } from "./fineTune.ts";
import { bytes } from "./text.ts";

/** Rows that an estimate looks at. */
const LOOKED_AT = 1000;

export interface ReuseFlags {
  readonly reuse: boolean;
  readonly reuseBytes?: number | undefined;
}

/** What computes the loss of a run from what its rows can change; null where --no-reuse says so. */
export const reusedLoss = (peft: PeftModel<LanguageModel>, { reuse, reuseBytes }: ReuseFlags): ReusedLoss | null =>
  reuse ? new ReusedLoss(peft, reuseBytes === undefined ? {} : { maxBytes: reuseBytes }) : null;

/** What a run will keep. */
export interface ReusePlan {
  /** Bytes for all rows, from some of them; null where nothing is kept. */
  readonly estimate: number | null;
  /** In words. */
  readonly line: string;
}

/** What keeping the beginnings of all rows takes, or why they are not kept. */
export function reusePlan(reused: ReusedLoss | null, examples: SequenceDataset, { packing }: Recipe): ReusePlan {
  const off = (why: string): ReusePlan => ({ estimate: null, line: `off: ${why}` });
  if (!reused) return off("--no-reuse");
  if (packing) return off("--packing puts several texts into a row");
  const every = Math.ceil(examples.length / LOOKED_AT);
  const found = reused.estimate(singles(examples, every));
  if (found.off === found.rows) return off(found.why!);
  const estimate = Math.round((found.bytes * examples.length) / found.rows);
  if (estimate === 0) return { estimate, line: "nothing: every row begins with a trained token" };
  const { maxBytes } = reused.report;
  const fits = estimate <= maxBytes ? "" : `, of which ${bytes(maxBytes)} fit`;
  return { estimate, line: `what comes before the first trained token of each row, ${bytes(estimate)}${fits}` };
}

function* singles(examples: SequenceDataset, every: number): Generator<LabelledBatch> {
  for (let i = 0; i < examples.length; i += every) yield padSequences([examples.at(i)!]);
}

/** For --json: what came of it. */
export function reuseReport(reused: ReusedLoss | null, { estimate, line }: ReusePlan): object {
  if (!reused) return { on: false, why: line.replace("off: ", "") };
  const { on, why, hits, misses, evictions, skipped, plain, bytes: kept, maxBytes } = reused.report;
  return { on, why, hits, misses, evictions, skipped, plain_steps: plain, bytes: kept, max_bytes: maxBytes, estimate };
}
