import type { LabelledBatch } from "@neolog/models";
import { BYTES_PER_ELEMENT, type Tensor, add, slice, sum } from "@neolog/tensor";
import { type CallOptions, batchOf } from "../mixedBatch.ts";
import type { AnyPeftModel } from "../model.ts";
import { ByteBudget, type Sized } from "./byteBudget.ts";
import { type RowsAlone, rowsAlone } from "./conditions.ts";
import { FrozenLoss, lossesOf, trainedLosses } from "./frozenLoss.ts";
import { FrozenPrefix } from "./frozenPrefix.ts";
import { type Run, bytesPerPosition, runPrefix, runTogether } from "./runs.ts";
import { type Part, type Span, meanInOrder } from "./inOrder.ts";
import { type Plan, isSplit, planOf } from "./plan.ts";
import { type Sample, countedIn, prefixKey, targetsKey } from "./sample.ts";

export interface ReuseOptions {
  /** What may be kept; 1 GiB by default. */
  readonly maxBytes?: number;
}

export interface ReuseReport {
  /** Whether the last loss was computed from what can change alone. */
  readonly on: boolean;
  /** Why not, in words. */
  readonly why: string | null;
  /** Samples whose beginnings were kept, and that had to be run. */
  readonly hits: number;
  readonly misses: number;
  readonly evictions: number;
  /** Samples that no trained row can change. */
  readonly skipped: number;
  /** Losses that were `peft.loss`. */
  readonly plain: number;
  readonly bytes: number;
  readonly maxBytes: number;
}

/** What keeping takes, at most: layers with a window keep less, and what rows begin with in common is kept once. */
export interface ReuseEstimate {
  readonly bytes: number;
  /** How many there are. */
  readonly rows: number;
  /** Of which nothing is kept, since their loss is `peft.loss`. */
  readonly off: number;
  /** Why, in words; null where there are none. */
  readonly why: string | null;
}

/** Numbers that are kept of each prediction of a trained head, beside its hidden state. */
const SEEN = 3;

/**
 * The loss of training token rows from only what they can change. Before the first trained token of a sample all keys, values and
 * hidden states are constants: they are computed once, without a graph, and kept within a budget of bytes, the least recently used
 * going first. Their predictions cost the trained columns of the logits alone, or nothing where the head does not train. Samples
 * without a trained token are not run at all.
 *
 * The value is that of `peft.loss`, to the bit on an exact backend where rows are not padded on the left; gradients are summed in
 * another order. Where anything else trains or adapts the model, attention is not causal, or rows hold several texts, it is
 * `peft.loss`, and `report.why` says so. What was kept is forgotten when the base changes.
 */
export class ReusedLoss {
  readonly #peft: AnyPeftModel;
  readonly #kept: ByteBudget<Sized>;
  #base: readonly { readonly tensor: Tensor; readonly version: number }[] = [];
  #merged = "";
  #why: string | null = null;
  #used = false;
  #plain = 0;
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
    const [on, why, plain] = [this.#why === null && this.#used, this.#why, this.#plain];
    return {
      on,
      why,
      hits: this.#hits,
      misses: this.#misses,
      evictions,
      skipped: this.#skipped,
      plain,
      bytes,
      maxBytes,
    };
  }
  /** No trained row could change the last loss: its gradients are 0. */
  get idle(): boolean {
    return this.#idle;
  }

  /** The mean loss over the labels that count, []; `adapterNames` as in `peft.loss`. */
  loss(batch: LabelledBatch, options: CallOptions = {}): Tensor {
    const plan = options.adapterNames ? "samples have adapters of their own" : this.#plan(batch);
    this.#used = true;
    this.#why = typeof plan === "string" ? plan : null;
    this.#idle = false;
    const plain = (): Tensor => {
      this.#plain++;
      return this.#peft.loss(batch as never, options);
    };
    if (typeof plan === "string") return plain();
    const { samples } = plan;
    this.#forgetUnless(plan.base);
    const split = samples.filter(isSplit);
    if (split.length === 0 || samples.every(({ ids }) => ids.length === 0)) return plain();
    this.#skipped += split.filter(({ ids, prefix }) => prefix === ids.length).length;
    const { loss, ran } = this.#meanOf(plan);
    this.#idle = !loss.tracked;
    return ran ? loss : withZeros(loss, plan);
  }

  /** From the parts of all samples; `ran`: some of them were looked up with a graph. */
  #meanOf(plan: Plan): { readonly loss: Tensor; readonly ran: boolean } {
    const { model, head, samples } = plan;
    const parts: Part[] = [];
    const runs: (Run & { readonly at: Span; readonly targets: Int32Array })[] = [];
    const trained: { readonly loss: FrozenLoss; readonly at: Span }[] = [];
    let total = 0;
    for (const sample of samples) {
      const [start, targets] = [total, countedTargets(sample)];
      total += targets.length;
      if (!isSplit(sample)) {
        runs.push({ sample, past: null, at: [start, total], targets });
        continue;
      }
      const { loss, prefix } = this.#beginning(plan, sample);
      const middle = start + (loss?.targets.length ?? 0);
      if (loss?.losses) parts.push({ losses: loss.losses, at: [[start, middle]] });
      else if (loss) trained.push({ loss, at: [start, middle] });
      if (prefix) runs.push({ sample, past: prefix, at: [middle, total], targets: targets.subarray(middle - start) });
    }
    if (trained.length > 0) {
      const losses = trainedLosses(
        head,
        trained.map(({ loss }) => loss),
      );
      parts.push({ losses, at: trained.map(({ at }) => at) });
    }
    if (runs.length > 0) {
      const targets = Int32Array.from(runs.flatMap((run) => [...run.targets]));
      parts.push({ losses: lossesOf(head, runTogether(model, runs), targets), at: runs.map(({ at }) => at) });
    }
    return { loss: meanInOrder(parts, total), ran: runs.length > 0 };
  }

  /** What keeping the beginnings of all rows of these batches takes. */
  estimate(batches: Iterable<LabelledBatch>): ReuseEstimate {
    const alone = rowsAlone(this.#peft);
    let [total, rows, off, perPosition]: [number, number, number, number | null] = [0, 0, 0, null];
    let why: string | null = null;
    for (const batch of batches) {
      const length = batchOf(batch);
      rows += length;
      const plan = typeof alone === "string" ? alone : planOf(alone, batch);
      if (typeof plan === "string") {
        [off, why] = [off + length, plan];
        continue;
      }
      const { weight, override } = plan.head;
      for (const sample of plan.samples.filter(({ ids }) => ids.length > 0).filter(isSplit)) {
        const { ids, prefix, targets } = sample;
        perPosition ??= bytesPerPosition(plan, sample);
        const n = countedIn(targets.subarray(0, prefix)).length;
        if (prefix < ids.length) total += perPosition * prefix;
        total += BYTES_PER_ELEMENT.float32 * n * (override ? weight.shape[1]! + SEEN : 1);
      }
    }
    return { bytes: total, rows, off, why };
  }

  dispose(): void {
    this.#kept.clear();
  }

  #plan(batch: LabelledBatch): Plan | string {
    const alone = rowsAlone(this.#peft);
    return typeof alone === "string" ? alone : planOf(alone, batch);
  }

  /** Forgets everything where the base is not what it was: its tensors, what is written in them, what is merged and in effect. */
  #forgetUnless(base: readonly Tensor[]): void {
    const { enabled, merged } = this.#peft.adapters.state;
    const now = merged.length > 0 ? `${enabled} ${merged.join("/")}` : "";
    const same =
      now === this.#merged &&
      base.length === this.#base.length &&
      base.every((t, i) => this.#base[i]!.tensor === t && this.#base[i]!.version === t.version);
    if (same) return;
    this.#kept.clear();
    this.#merged = now;
    this.#base = base.map((tensor) => ({ tensor, version: tensor.version }));
  }

  /** What a sample's prefix predicts, and what its end needs of it, for the scope around this call; null where there is none. */
  #beginning(plan: Plan, sample: Sample): { readonly loss: FrozenLoss | null; readonly prefix: FrozenPrefix | null } {
    const { ids, prefix, targets } = sample;
    const [ofLoss, ofPrefix] = [keyOfLoss(plan, sample), keyOfPrefix(sample)];
    const wanted = { loss: countedIn(targets.subarray(0, prefix)).length > 0, prefix: prefix < ids.length };
    const kept = { loss: this.#kept.get(ofLoss), prefix: this.#kept.get(ofPrefix) };
    const known = (!wanted.loss || kept.loss) && (!wanted.prefix || kept.prefix);
    if (known) {
      if (ids.length > 0) this.#hits++;
      return {
        loss: kept.loss instanceof FrozenLoss ? kept.loss.view() : null,
        prefix: wanted.prefix && kept.prefix instanceof FrozenPrefix ? kept.prefix.view() : null,
      };
    }
    this.#misses++;
    const made = runPrefix(plan, sample);
    const views = { loss: made.loss?.view() ?? null, prefix: wanted.prefix ? made.prefix.view() : null };
    this.#keep(ofLoss, made.loss, wanted.loss && !kept.loss);
    this.#keep(ofPrefix, made.prefix, wanted.prefix && !kept.prefix);
    return views;
  }
  #keep(key: string, value: Sized | null, wanted: boolean): void {
    if (!wanted || !this.#kept.put(key, value!)) value?.dispose();
  }
}

/** A loss that no lookup led to, with gradients of 0 for the rows that lookups would have given: an optimizer moves them as ever. */
function withZeros(loss: Tensor, { input }: RowsAlone): Tensor {
  const trained = input.filter(({ rows }) => rows.tracked);
  return trained.reduce((total, { rows }) => add(total, sum(slice(rows, 0, 0, 0))), loss);
}

/** [n] */
const countedTargets = ({ targets }: Sample): Int32Array => targets.filter((target) => target !== -100);

const keyOfPrefix = (sample: Sample): string => `keys and values ${prefixKey(sample)}`;

const keyOfLoss = ({ head }: RowsAlone, sample: Sample): string =>
  `loss ${prefixKey(sample)}, ${targetsKey(sample)}, ${head.override?.columns.join(" ") ?? ""}`;
