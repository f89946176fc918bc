import type { View } from "../backend.ts";
import { arange, full } from "../create.ts";
import { sliceLayout } from "../layout.ts";
import { Scope } from "../scope.ts";
import type { Tensor } from "../tensor.ts";
import { lookAtInPlace } from "./lookAtInPlace.ts";
import { matmul, matmulT } from "./matmul.ts";
import { reshape } from "./movement.ts";
import { add, evaluate, exp, maximum, mul, sub } from "./pointwise.ts";
import { max, sum } from "./reduce.ts";
import { takeRows } from "./rows.ts";

/** What a maximum begins with where there is nothing to compare: finite, so that no difference is NaN. */
export const LEAST = -3.4028234663852886e38;

/** What rows of logits hold in some columns; [N, 1] each. */
export interface SeenColumns {
  readonly max: Tensor;
  /** Σ exp(logit − max) */
  readonly sum: Tensor;
  /** The target's logit, 0 where it is in another column. */
  readonly picked: Tensor;
}

/** Columns of the logits that are computed together. */
export interface Block {
  /** [C, D] */
  readonly weight: Tensor;
  /** int32 [N]; targets[i] − first is the target's column in this block, outside [0, C) when it is in another. */
  readonly targets: Tensor;
  readonly first: number;
  /** Columns that another block stands in for. */
  readonly dead: readonly number[];
}

/** A linear layer and what its outputs should be. */
export interface Head {
  /** [N, D] */
  readonly hidden: Tensor;
  readonly weight: Tensor;
  readonly rows: Tensor | null;
  readonly softcap: number | null;
  /** int32 [N, 1]: 1 in rows that count. */
  readonly counted: Tensor;
  /** int32 [N]: the row of the weight that is the target; −1 where none is. */
  readonly targets: Tensor;
  /** int32 [N]: the overriding row that is the target; −1 where none is. */
  readonly slots: Tensor;
  /** The weight, piece by piece. */
  readonly chunks: () => readonly Block[];
  /** The overriding rows, where there are some. */
  readonly overriding: readonly Block[];
}

/** [N, C]; −Infinity in dead columns. */
export function logitsOf({ hidden, softcap }: Head, { weight, dead }: Block): Tensor {
  const raw = matmulT(hidden, weight);
  const logits = softcap === null ? raw : evaluate("tanh", "b * tanh(a / b)", raw, softcap);
  for (const column of dead) logits.backend.fill(columnOf(logits.view("linearCrossEntropy"), column), -Infinity);
  return logits;
}

const columnOf = ({ buffer, layout }: View, column: number): View => ({
  buffer,
  layout: sliceLayout(layout, 1, column, 1),
});

/** x·∂logit/∂raw: the soft cap flattens large logits. 0, not NaN, where they are −Infinity. */
export const uncapped = (x: Tensor, logits: Tensor, softcap: number | null): Tensor =>
  softcap === null ? x : evaluate("mul", "a * max(0, 1 - b / c * (b / c))", x, logits, softcap);

/** What has been seen of each row of logits. */
export interface Seen extends SeenColumns {
  /** Σ exp(logit − max)·∂logit/∂hidden, [N, D]; null where no gradient is wanted. */
  readonly product: Tensor | null;
}

/** What rows of logits hold in these columns and in those that are known; block after block, in place where the backend can. */
export function lookAt(head: Head, blocks: readonly Block[], known: SeenColumns | null, withProduct: boolean): Seen {
  const live = blocks.filter(({ dead, weight }) => dead.length < weight.shape[0]!);
  return lookAtInPlace(head, live, known, withProduct) ?? composite(head, live, known, withProduct);
}

function composite(head: Head, blocks: readonly Block[], columns: SeenColumns | null, withProduct: boolean): Seen {
  const known: Seen | null = columns && { ...columns, product: null };
  let seen = known;
  for (const block of blocks) {
    using scope = new Scope();
    const before: Seen | null = seen;
    const logits = logitsOf(head, block);
    const own = max(logits, 1, true);
    const largest = before ? maximum(before.max, own) : own;
    const exps = evaluate("exp", "exp(a - b)", logits, largest);
    const now: Seen = {
      max: largest,
      sum: sum(exps, 1, true),
      picked: pick(logits, sub(block.targets, block.first)),
      product: withProduct ? matmul(uncapped(exps, logits, head.softcap), block.weight) : null,
    };
    seen = before ? joined(before, now) : now;
    for (const t of tensorsOf(seen)) scope.keep(t);
    if (before && before !== known) for (const t of tensorsOf(before)) t.dispose();
  }
  return seen ?? nothing(head);
}

/** What is seen where no column is looked at. */
function nothing({ counted, hidden: { dtype, backend } }: Head): Seen {
  const of = (value: number): Tensor => full(counted.shape, value, dtype === "float64" ? dtype : "float32", backend);
  return { max: of(LEAST), sum: of(0), picked: of(0), product: null };
}

const tensorsOf = ({ max, sum, picked, product }: Seen): Tensor[] =>
  product ? [max, sum, picked, product] : [max, sum, picked];

/** What was seen before, brought to the new maximum, and what is seen now. */
function joined(before: Seen, now: Seen): Seen {
  const factor = exp(sub(before.max, now.max));
  const total = (x: Tensor, y: Tensor): Tensor => evaluate("add", "a * b + c", x, factor, y);
  return {
    max: now.max,
    sum: total(before.sum, now.sum),
    picked: add(before.picked, now.picked),
    product: before.product && total(before.product, now.product!),
  };
}

/** logits [N, C] → [N, 1]: each row's logit at its target, 0 where that is elsewhere. */
function pick(logits: Tensor, targets: Tensor): Tensor {
  const [N, C] = logits.shape as [number, number];
  const starts = mul(arange(N, "int32", logits.backend), C);
  const position = evaluate("where", "a >= 0 ? (a < c ? a + b : -1) : -1", targets, starts, C);
  return takeRows(reshape(logits, [N * C, 1]), position);
}
