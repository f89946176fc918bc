import type { CausalLM } from "@neolog/models";
import {
  type Tensor,
  add,
  cat,
  crossEntropy,
  detach,
  div,
  intTensor,
  linear,
  linearLogSumExp,
  mul,
  persist,
  squeeze,
  sub,
  sum,
  tanh,
  where,
} from "@neolog/tensor";

/** Where the head trains: what the logits that train are computed from. */
interface TrainedColumns {
  /** The normed output at positions with a target, [n, hidden] */
  readonly hidden: Tensor;
  /** log Σ exp of the logits that do not train, [n, 1] */
  readonly logSumExp: Tensor;
  /** Which trained column is the target; −1 where it is another. [n] */
  readonly slots: Int32Array;
}

/** What the predictions from one sample's prefix add to the sum of losses, as far as training cannot change it. */
export class FrozenLoss {
  /** Targets that count. */
  readonly count: number;
  /** The sum of their losses, []; where the head trains, the part of it that does not change. */
  readonly sum: Tensor;
  readonly columns: TrainedColumns | null;

  private constructor(count: number, constant: Tensor, columns: TrainedColumns | null) {
    this.count = count;
    this.sum = constant;
    this.columns = columns;
  }

  /** From the normed output at the targets of a prefix, hidden [n, hidden]. Call it untracked; the result lives until disposed. */
  static from(model: CausalLM, hidden: Tensor, targets: Int32Array): FrozenLoss {
    const { weight, override, cap } = model.linearHead!;
    if (!override)
      return new FrozenLoss(targets.length, persist(mul(model.lossOf(hidden, targets), targets.length)), null);
    const { columns } = override;
    const found = linearLogSumExp(hidden, weight, intTensor(targets), { except: columns, softcap: cap });
    const slots = targets.map((target) => columns.indexOf(target));
    const isFrozen = intTensor(slots.map((slot) => Number(slot < 0)));
    const constant = sum(where(isFrozen, squeeze(sub(found.logSumExp, found.picked), 1), 0));
    const logSumExp = persist(found.logSumExp);
    return new FrozenLoss(targets.length, persist(constant), { hidden: persist(hidden), logSumExp, slots });
  }

  get bytes(): number {
    return 4 * this.#tensors.reduce((n, t) => n + t.size, 0);
  }
  get #tensors(): Tensor[] {
    return this.columns ? [this.sum, this.columns.hidden, this.columns.logSumExp] : [this.sum];
  }

  /** The same for the scope around this call, whatever is disposed in it. */
  view(): FrozenLoss {
    const columns = this.columns && {
      hidden: detach(this.columns.hidden),
      logSumExp: detach(this.columns.logSumExp),
      slots: this.columns.slots,
    };
    return new FrozenLoss(this.count, detach(this.sum), columns);
  }

  dispose(): void {
    for (const t of this.#tensors) t.dispose();
  }
}

/** The sum of all losses, [], with gradients for the trained columns of the head. */
export function sumOfLosses(model: CausalLM, parts: readonly FrozenLoss[]): Tensor {
  const constant = parts.map((part) => part.sum).reduce((a, b) => add(a, b));
  const trained = parts.flatMap(({ columns }) => columns ?? []);
  if (trained.length === 0) return constant;
  const { override, cap } = model.linearHead!;
  const raw = linear(cat(trained.map(({ hidden }) => hidden)), override!.rows, null); // [n, k]
  const columns = cap === null ? raw : mul(tanh(div(raw, cap)), cap);
  // All others stand together as one logit: a target among them then costs log Σ exp less that one, and `constant` has the rest.
  const logits = cat([cat(trained.map(({ logSumExp }) => logSumExp)), columns], 1);
  const targets = Int32Array.from(
    trained.flatMap(({ slots }) => [...slots]),
    (slot) => slot + 1,
  );
  return add(constant, mul(crossEntropy(logits, intTensor(targets)), targets.length));
}
