import { type CausalLM, type HostMatrix, RaggedPositions } from "@neolog/models";
import { Scope, type Tensor, reshape, takeRows, untracked } from "@neolog/tensor";
import type { RowsAlone } from "./conditions.ts";
import { FrozenLoss } from "./frozenLoss.ts";
import { type FrozenPrefix, PrefixRecorder } from "./frozenPrefix.ts";
import { type Sample, countedIn } from "./sample.ts";

/** What runs. */
type Whom = Pick<RowsAlone, "model" | "head">;

/** What a sample's first positions leave behind. */
export interface Beginning {
  readonly prefix: FrozenPrefix;
  /** Of what they predict; null where nothing of that counts. */
  readonly loss: FrozenLoss | null;
}

/** Runs a sample's prefix without a graph; the result lives until disposed. */
export function runPrefix({ model, head }: Whom, { ids, positions, targets, prefix }: Sample): Beginning {
  return untracked(() => {
    using _run = new Scope();
    const recorder = new PrefixRecorder();
    const hidden = model.lastHiddenState({
      input_ids: rowOf(ids.subarray(0, prefix)),
      position_ids: rowOf(positions.subarray(0, prefix)),
      past_key_values: recorder,
    });
    const wanted = targets.subarray(0, prefix);
    const at = countedIn(wanted);
    const loss =
      at.length > 0
        ? FrozenLoss.from(
            head,
            takeRows(flat(hidden), at),
            at.map((i) => wanted[i]!),
          )
        : null;
    return { prefix: recorder.finish(prefix), loss };
  });
}

/** A sample, from its first position that is not cached on. */
export interface Run {
  readonly sample: Sample;
  /** What is cached of it: null where it runs from its first token on. */
  readonly past: FrozenPrefix | null;
}

/** The normed output at the targets of what runs, one run after the other, [n, hidden]; one product over the positions of all runs. */
export function runTogether(model: CausalLM, runs: readonly Run[]): Tensor {
  const joined = (key: "ids" | "positions" | "targets"): Int32Array =>
    Int32Array.from(runs.flatMap(({ sample, past }) => [...sample[key].subarray(past?.length ?? 0)]));
  const texts = runs.map(({ sample, past }) => ({ length: sample.ids.length - (past?.length ?? 0), past }));
  // a batch like any other needs no attention text by text
  const even = texts.every(({ length, past }) => past === null && length === texts[0]!.length);
  const cache = even ? null : texts.length === 1 ? texts[0]!.past : new RaggedPositions(texts);
  const hidden = model.lastHiddenState({
    input_ids: rowsOf(joined("ids"), even ? texts.length : 1),
    position_ids: rowsOf(joined("positions"), even ? texts.length : 1),
    ...(cache ? { past_key_values: cache } : {}),
  });
  return takeRows(flat(hidden), countedIn(joined("targets")));
}

/** Bytes of a position's keys and values in all layers. */
export function bytesPerPosition(whom: Whom, { ids, positions }: Sample): number {
  const { prefix } = runPrefix(whom, { ids, positions, targets: new Int32Array(1).fill(-100), prefix: 1 });
  const { bytes } = prefix;
  prefix.dispose();
  return bytes;
}

const rowsOf = (values: Int32Array, rows: number): HostMatrix => ({ values, rows, columns: values.length / rows });
const rowOf = (values: Int32Array): HostMatrix => rowsOf(values.slice(), 1);

/** [B, T, hidden] → [B · T, hidden] */
const flat = (x: Tensor): Tensor => reshape(x, [x.shape[0]! * x.shape[1]!, x.shape[2]!]);
