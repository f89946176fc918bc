import { type CausalLM, type HostMatrix, type LabelledBatch, shiftedTargets, toHost, toHostLike } from "@neolog/models";
import { Scope, type Tensor, add, cat, div, mul, reshape, sum, takeRows, untracked } from "@neolog/tensor";
import { type AnyPeftModel, tokenParameters } from "../model.ts";
import { ByteBudget, type Sized } from "./byteBudget.ts";
import { type RowsAlone, rowsAlone } from "./conditions.ts";
import { FrozenLoss, sumOfLosses } from "./frozenLoss.ts";
import { FrozenPrefix, PrefixRecorder } from "./frozenPrefix.ts";
import { type Sample, counted, prefixKey, samplesOf, targetsKey } from "./sample.ts";

export interface ReuseOptions {
  /** What may be kept; 1 GiB by default. */
  readonly maxBytes?: number;
}

export interface ReuseReport {
  /** Whether the last loss was computed from what can change alone. */
  readonly on: boolean;
  /** Why not, in words. */
  readonly why: string | null;
  /** Prefixes, or losses of their predictions, that were kept, and that were not. */
  readonly hits: number;
  readonly misses: number;
  readonly evictions: number;
  /** Samples that no trained row can change. */
  readonly skipped: number;
  readonly bytes: number;
  readonly maxBytes: number;
}

/** A row is split where its prefix is at least this part of it: running it in two costs more than a shorter one saves. */
const WORTH = 1 / 8;

/**
 * The loss of training token rows from only what they can change. Before the first trained token of a sample all keys, values and
 * hidden states are constants: they are computed once, without a graph, and kept within a budget of bytes, the least recently used
 * going first. Their predictions cost the trained columns of the logits alone, or nothing where the head does not train. Samples
 * without a trained token are not run at all.
 *
 * The value is that of `peft.loss` up to rounding. Where anything else trains or adapts the model, attention is not causal, or rows
 * hold several texts, it is `peft.loss`, and `report.why` says so. What was kept is forgotten when the base changes.
 */
export class ReusedLoss {
  readonly #peft: AnyPeftModel;
  readonly #kept: ByteBudget<Sized>;
  #base: readonly { readonly tensor: Tensor; readonly version: number }[] = [];
  #why: string | null = null;
  #on = false;
  #hits = 0;
  #misses = 0;
  #skipped = 0;
  #idle = false;

  constructor(peft: AnyPeftModel, { maxBytes = 2 ** 30 }: ReuseOptions = {}) {
    this.#peft = peft;
    this.#kept = new ByteBudget(maxBytes);
  }

  get report(): ReuseReport {
    const { bytes, maxBytes, evictions } = this.#kept;
    const [on, why, hits, misses, skipped] = [this.#on, this.#why, this.#hits, this.#misses, this.#skipped];
    return { on, why, hits, misses, evictions, skipped, bytes, maxBytes };
  }
  /** No trained row could change the last loss: its gradients are 0. */
  get idle(): boolean {
    return this.#idle;
  }

  /** The mean loss over the labels that count, []. */
  loss(batch: LabelledBatch): Tensor {
    const plan = this.#plan(batch);
    this.#on = typeof plan !== "string";
    this.#why = typeof plan === "string" ? plan : null;
    this.#idle = false;
    if (typeof plan === "string") return this.#peft.loss(batch as never);
    const { model, base, samples } = plan;
    this.#forgetUnless(base);
    const all = samples.reduce((n, { targets }) => n + counted(targets), 0);
    const split = samples.filter(({ prefix, ids }) => prefix >= ids.length * WORTH);
    if (all === 0 || split.length === 0) return this.#peft.loss(batch as never);
    const whole = samples.filter((sample) => !split.includes(sample));
    const frozen = split.flatMap((sample) => this.#lossOfPrefix(model, sample) ?? []);
    const parts = frozen.length > 0 ? [sumOfLosses(model, frozen)] : [];
    const ends = [...hiddenOf(model, whole), ...split.flatMap((sample) => this.#end(model, sample) ?? [])];
    if (ends.length > 0) {
      const targets = Int32Array.from(ends.flatMap((end) => [...end.targets]));
      const mean = model.lossOf(cat(ends.map(({ hidden }) => hidden)), targets);
      parts.push(mul(mean, counted(targets)));
    }
    const loss = div(
      parts.reduce((a, b) => add(a, b)),
      all,
    );
    this.#skipped += split.filter(({ ids, prefix }) => prefix === ids.length).length;
    if (loss.tracked) return loss;
    this.#idle = true;
    return tokenParameters(this.#peft).reduce((total, rows) => add(total, mul(sum(rows), 0)), loss);
  }

  /** Bytes that keeping all of these batches takes, at most. */
  estimate(batches: Iterable<LabelledBatch>): number {
    const sizes = new Map<string, number>();
    let perPosition: number | null = null;
    for (const batch of batches) {
      const plan = this.#plan(batch);
      if (typeof plan === "string") continue;
      const { model, samples } = plan;
      perPosition ??= bytesPerPosition(model, samples[0]!);
      const { weight, override } = model.linearHead!;
      for (const sample of samples) {
        const { ids, prefix, targets } = sample;
        if (prefix < ids.length * WORTH) continue;
        const n = counted(targets.subarray(0, prefix));
        if (prefix < ids.length) sizes.set(keyOfPrefix(sample), perPosition * prefix);
        if (n > 0) sizes.set(keyOfLoss(model, sample), override ? 4 * n * (weight.shape[1]! + 1) + 4 : 4);
      }
    }
    return [...sizes.values()].reduce((a, b) => a + b, 0);
  }

  dispose(): void {
    this.#kept.clear();
  }

  #plan(batch: LabelledBatch): (RowsAlone & { readonly samples: readonly Sample[] }) | string {
    const alone = rowsAlone(this.#peft);
    if (typeof alone === "string") return alone;
    if (batch.past_key_values) return "positions are cached already";
    const ids = toHost("input_ids", batch.input_ids);
    const { rows, columns } = ids;
    const targets = shiftedTargets(toHostLike("labels", batch.labels, rows, columns));
    const mask = batch.attention_mask ? toHostLike("attention_mask", batch.attention_mask, rows, columns).values : null;
    const samples = samplesOf({ ids, positions: alone.model.positionIds(batch), targets, mask }, alone.input);
    return typeof samples === "string" ? samples : { ...alone, samples };
  }

  /** Forgets everything where the base is not what it was. */
  #forgetUnless(base: readonly Tensor[]): void {
    const same =
      base.length === this.#base.length &&
      base.every((t, i) => this.#base[i]!.tensor === t && this.#base[i]!.version === t.version);
    if (same) return;
    this.#kept.clear();
    this.#base = base.map((tensor) => ({ tensor, version: tensor.version }));
  }

  /** What a sample's prefix predicts; null where nothing of that counts. */
  #lossOfPrefix(model: CausalLM, sample: Sample): FrozenLoss | null {
    if (counted(sample.targets.subarray(0, sample.prefix)) === 0) return null;
    const known = this.#kept.get(keyOfLoss(model, sample));
    if (known) this.#hits++;
    return known instanceof FrozenLoss ? known.view() : this.#run(model, sample).loss!;
  }

  /** The normed output of what follows a sample's prefix, [n, hidden]; null where it predicts nothing. */
  #end(model: CausalLM, sample: Sample): Ending | null {
    const { ids, positions, prefix } = sample;
    const targets = sample.targets.subarray(prefix);
    if (counted(targets) === 0) return null;
    const known = this.#kept.get(keyOfPrefix(sample));
    if (known) this.#hits++;
    const past_key_values = known instanceof FrozenPrefix ? known.view() : this.#run(model, sample).prefix!;
    const input_ids = rowOf(ids.subarray(prefix));
    const position_ids = rowOf(positions.subarray(prefix));
    return { hidden: flat(model.lastHiddenState({ input_ids, position_ids, past_key_values })), targets };
  }

  /** Runs a prefix without a graph and keeps what comes of it, as far as there is room; → views for the scope around this call. */
  #run(model: CausalLM, sample: Sample): { readonly prefix: FrozenPrefix | null; readonly loss: FrozenLoss | null } {
    const { ids, prefix, targets } = sample;
    this.#misses++;
    const made = untracked(() => {
      using _run = new Scope();
      const { hidden, recorder } = runPrefix(model, sample);
      const seen = recorder.finish(prefix);
      const at = Int32Array.from({ length: prefix }, (_, i) => i).filter((i) => targets[i] !== -100);
      const loss =
        at.length > 0
          ? FrozenLoss.from(
              model,
              takeRows(hidden, at),
              at.map((i) => targets[i]!),
            )
          : null;
      return { prefix: seen, loss };
    });
    const views = { prefix: made.prefix.view(), loss: made.loss?.view() ?? null };
    this.#keep(prefix < ids.length ? keyOfPrefix(sample) : null, made.prefix);
    if (made.loss) this.#keep(keyOfLoss(model, sample), made.loss);
    return views;
  }
  #keep(key: string | null, value: Sized): void {
    const isNew = key !== null && !this.#kept.get(key);
    if (!isNew || !this.#kept.put(key, value)) value.dispose();
  }
}

interface Ending {
  /** [n, hidden] */
  readonly hidden: Tensor;
  /** [n] */
  readonly targets: Int32Array;
}

/** Samples that are run from their first token on, together. */
function hiddenOf(model: CausalLM, samples: readonly Sample[]): Ending[] {
  if (samples.length === 0) return [];
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
  const { values } = padded(
    ({ targets }) => targets,
    () => -100,
  );
  return [{ hidden: flat(hidden), targets: values }];
}

function runPrefix(model: CausalLM, { ids, positions, prefix }: Sample): { hidden: Tensor; recorder: PrefixRecorder } {
  const recorder = new PrefixRecorder();
  const hidden = model.lastHiddenState({
    input_ids: rowOf(ids.subarray(0, prefix)),
    position_ids: rowOf(positions.subarray(0, prefix)),
    past_key_values: recorder,
  });
  return { hidden: flat(hidden), recorder };
}

/** Bytes of a position's keys and values in all layers. */
function bytesPerPosition(model: CausalLM, { ids, positions }: Sample): number {
  return untracked(() => {
    using _run = new Scope();
    const one = runPrefix(model, { ids, positions, targets: ids, prefix: 1 }).recorder.finish(1);
    const { bytes } = one;
    one.dispose();
    return bytes;
  });
}

const keyOfPrefix = (sample: Sample): string => `keys and values ${prefixKey(sample)}`;

const keyOfLoss = (model: CausalLM, sample: Sample): string =>
  `loss ${prefixKey(sample)}, ${targetsKey(sample)}, ${model.linearHead!.override?.columns.join(" ") ?? ""}`;

const rowOf = (values: Int32Array): HostMatrix => ({ values: values.slice(), rows: 1, columns: values.length });

/** [B, T, hidden] → [B · T, hidden] */
const flat = (x: Tensor): Tensor => reshape(x, [x.shape[0]! * x.shape[1]!, x.shape[2]!]);
