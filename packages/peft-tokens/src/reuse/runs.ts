import type { CausalLM, HostMatrix } from "@neolog/models";
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

/** The normed output at the targets of what follows a sample's prefix, [n, hidden]. */
export function runEnd(model: CausalLM, { ids, positions, targets, prefix }: Sample, past: FrozenPrefix): Tensor {
  const hidden = model.lastHiddenState({
    input_ids: rowOf(ids.subarray(prefix)),
    position_ids: rowOf(positions.subarray(prefix)),
    past_key_values: past,
  });
  return takeRows(flat(hidden), countedIn(targets.subarray(prefix)));
}

/** The normed output at the targets of samples that are run from their first token on, together, one after the other, [n, hidden]. */
export function runWhole(model: CausalLM, samples: readonly Sample[]): Tensor {
  const columns = Math.max(...samples.map(({ ids }) => ids.length));
  const padded = (row: (sample: Sample) => Int32Array, padding: (sample: Sample) => number): HostMatrix => {
    const values = new Int32Array(samples.length * columns);
    samples.forEach((sample, i) => {
      values.fill(padding(sample), i * columns, (i + 1) * columns);
      values.set(row(sample), i * columns);
    });
    return { values, rows: samples.length, columns };
  };
  const hidden = model.lastHiddenState({
    input_ids: padded(
      ({ ids }) => ids,
      () => 0,
    ),
    position_ids: padded(
      ({ positions }) => positions,
      ({ positions }) => positions.at(-1)!,
    ),
    attention_mask: padded(
      ({ ids }) => new Int32Array(ids.length).fill(1),
      () => 0,
    ),
  });
  const targets = padded(
    ({ targets }) => targets,
    () => -100,
  );
  return takeRows(flat(hidden), countedIn(targets.values));
}

/** Bytes of a position's keys and values in all layers. */
export function bytesPerPosition(whom: Whom, { ids, positions }: Sample): number {
  const { prefix } = runPrefix(whom, { ids, positions, targets: new Int32Array(1).fill(-100), prefix: 1 });
  const { bytes } = prefix;
  prefix.dispose();
  return bytes;
}

const rowOf = (values: Int32Array): HostMatrix => ({ values: values.slice(), rows: 1, columns: values.length });

/** [B, T, hidden] → [B · T, hidden] */
const flat = (x: Tensor): Tensor => reshape(x, [x.shape[0]! * x.shape[1]!, x.shape[2]!]);
