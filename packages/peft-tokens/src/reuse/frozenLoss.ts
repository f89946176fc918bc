import {
  BYTES_PER_ELEMENT,
  type SeenColumns,
  type Tensor,
  cat,
  detach,
  frozenColumns,
  intTensor,
  linearCrossEntropy,
  persist,
} from "@neolog/tensor";
import type { OneProduct } from "./conditions.ts";

/** Where the head trains: what the logits that train are computed from, and what is known of all others. */
interface TrainedColumns extends SeenColumns {
  /** The normed output at positions with a target, [n, hidden] */
  readonly hidden: Tensor;
}

/** The losses of what one sample's prefix predicts, as far as training cannot change them. */
export class FrozenLoss {
  /** Those that count, [n] */
  readonly targets: Int32Array;
  /** [n]; null where the head trains. */
  readonly losses: Tensor | null;
  readonly columns: TrainedColumns | null;

  private constructor(targets: Int32Array, losses: Tensor | null, columns: TrainedColumns | null) {
    this.targets = targets;
    this.losses = losses;
    this.columns = columns;
  }

  /** From the normed output at the targets of a prefix, hidden [n, hidden]. Call it untracked; the result lives until disposed. */
  static from(head: OneProduct, hidden: Tensor, targets: Int32Array): FrozenLoss {
    const { weight, override, cap } = head;
    if (!override) return new FrozenLoss(targets, persist(lossesOf(head, hidden, targets)), null);
    const seen = frozenColumns(hidden, weight, intTensor(targets), override.columns, { softcap: cap });
    const { max, sum, picked } = seen;
    for (const t of [hidden, max, sum, picked]) persist(t);
    return new FrozenLoss(targets, null, { hidden, max, sum, picked });
  }

  get bytes(): number {
    return this.#tensors.reduce((n, t) => n + BYTES_PER_ELEMENT[t.dtype] * t.size, 0);
  }
  get #tensors(): Tensor[] {
    const { losses, columns } = this;
    return [...(losses ? [losses] : []), ...(columns ? Object.values(columns) : [])];
  }

  /** The same for the scope around this call, whatever is disposed in it. */
  view(): FrozenLoss {
    const { losses, columns } = this;
    const views = columns && {
      hidden: detach(columns.hidden),
      max: detach(columns.max),
      sum: detach(columns.sum),
      picked: detach(columns.picked),
    };
    return new FrozenLoss(this.targets, losses && detach(losses), views);
  }

  dispose(): void {
    for (const t of this.#tensors) t.dispose();
  }
}

/** The losses of prefixes whose head trains, [n] one after the other, with gradients for its columns alone. */
export function trainedLosses(head: OneProduct, parts: readonly FrozenLoss[]): Tensor {
  const columns = parts.map((part) => part.columns!);
  const joined = (key: keyof TrainedColumns): Tensor => cat(columns.map((each) => each[key]));
  const targets = Int32Array.from(parts.flatMap((part) => [...part.targets]));
  return lossesOf(head, joined("hidden"), targets, {
    max: joined("max"),
    sum: joined("sum"),
    picked: joined("picked"),
  });
}

/** The loss of each row of hidden [n, hidden], [n]. */
export function lossesOf(
  { weight, override, cap }: OneProduct,
  hidden: Tensor,
  targets: Int32Array,
  frozen: SeenColumns | null = null,
): Tensor {
  return linearCrossEntropy(hidden, weight, intTensor(targets), { override, softcap: cap, frozen, reduction: "none" });
}
