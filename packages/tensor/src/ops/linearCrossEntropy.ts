import type { View } from "../backend.ts";
import { arange, assign, intTensor, zeros } from "../create.ts";
import { IndexError, ShapeError, formatShape } from "../errors.ts";
import { sameShape, sliceLayout } from "../layout.ts";
import { provenance, records, untracked } from "../op.ts";
import { Scope } from "../scope.ts";
import type { Tensor } from "../tensor.ts";
import { matmul, matmulT } from "./matmul.ts";
import { reshape, slice, transpose, unsqueeze } from "./movement.ts";
import { add, div, equal, evaluate, exp, greaterEqual, log, maximum, mul, notEqual, sub, where } from "./pointwise.ts";
import { max, sum } from "./reduce.ts";
import { takeRows } from "./rows.ts";

/** −Infinity − −Infinity would be no number. */
const LOWEST = -3e38;

/** Columns of logits that exist at a time: 1 MiB of float32 for 128 rows. */
const CHUNK = 2048;

export interface LinearCrossEntropyOptions {
  /** Rows with this target count for nothing; −100 by default. */
  readonly ignoreIndex?: number;
  /** Logits become softcap·tanh(logit / softcap). */
  readonly softcap?: number | null;
  /** rows [k, D] that stand in for the rows `columns` of the weight; columns are distinct. */
  readonly override?: { readonly rows: Tensor; readonly columns: Int32Array } | null;
}

/** What the gradient needs; gradients in it are those for an incoming 1, null where none is wanted. */
export interface LinearCrossEntropyAttrs {
  readonly ignoreIndex: number;
  readonly softcap: number | null;
  readonly columns: Int32Array;
  /** log Σ exp of the logits, [N, 1] */
  readonly logSumExp: Tensor;
  /** [N, D] */
  readonly hiddenGrad: Tensor | null;
  /** [k, D] */
  readonly rowsGrad: Tensor | null;
}

/**
 * crossEntropy(matmulT(hidden, weight), targets) by chunks of the vocabulary: the [N, V] logits never exist. hidden [N, D],
 * weight [V, D] of any float dtype, targets int32 [N] → []. The gradients by hidden and by overriding rows come out of the same
 * pass: Σ exp(logit)·weight grows beside Σ exp(logit), both rescaled when a larger logit turns up, as in flash attention.
 * Throws IndexError for a target that is neither a row of the weight nor `ignoreIndex`. Dao et al. 2022, https://arxiv.org/abs/2205.14135
 */
export function linearCrossEntropy(
  hidden: Tensor,
  weight: Tensor,
  targets: Tensor,
  { ignoreIndex = -100, softcap = null, override = null }: LinearCrossEntropyOptions = {},
): Tensor {
  const { rows, columns } = override?.columns.length ? override : { rows: null, columns: new Int32Array() };
  checkShapes(hidden, weight, targets, rows, columns);
  checkTargets(targets, weight.shape[0]!, ignoreIndex);
  const [forHidden, forRows] = [records([hidden]), rows !== null && records([rows])];
  using scope = new Scope();
  const { loss, ...found } = untracked(() => {
    const head = headOf(hidden, weight, targets, { rows, columns, softcap, ignoreIndex });
    const seen = lookAt(head, forHidden);
    const logSum = log(seen.sum);
    const logSumExp = add(seen.max, logSum);
    const losses = sub(logSum, sub(seen.picked, seen.max)); // [N, 1]
    return {
      loss: scope.keep(div(sum(where(head.counted, losses, 0)), sum(head.counted))),
      logSumExp: scope.keep(logSumExp),
      hiddenGrad: seen.product && scope.keep(hiddenGradient(head, seen, seen.product)),
      rowsGrad: forRows ? scope.keep(weightGradient(head, head.blocks[0]!, logSumExp)) : null,
    };
  });
  const inputs = rows ? [hidden, weight, targets, rows] : [hidden, weight, targets];
  loss.source = provenance("linearCrossEntropy", inputs, { ignoreIndex, softcap, columns, ...found });
  return loss;
}

/**
 * What each row of logits comes to without the columns `except`: log Σ exp [N, 1], and the logit of its target [N, 1], 0 where that is
 * −100 or among `except`. hidden [N, D], weight [V, D], targets int32 [N]; no gradient.
 */
export function linearLogSumExp(
  hidden: Tensor,
  weight: Tensor,
  targets: Tensor,
  { softcap = null, except }: { readonly softcap?: number | null; readonly except: Int32Array },
): { readonly logSumExp: Tensor; readonly picked: Tensor } {
  checkShapes(hidden, weight, targets, null, except);
  checkTargets(targets, weight.shape[0]!, -100);
  using scope = new Scope();
  return untracked(() => {
    const head = headOf(hidden, weight, targets, { rows: null, columns: except, softcap, ignoreIndex: -100 });
    const { max: largest, sum: total, picked } = lookAt(head, false);
    return { logSumExp: scope.keep(add(largest, log(total))), picked: scope.keep(picked) };
  });
}

/** Its gradient by the weight for an incoming g []: 0 in overridden rows. The logits are computed again. → [V, D] */
export function linearCrossEntropyWeightGrad(
  hidden: Tensor,
  weight: Tensor,
  targets: Tensor,
  { logSumExp, ...attrs }: LinearCrossEntropyAttrs,
  g: Tensor,
): Tensor {
  using scope = new Scope();
  const out = zeros(weight.shape, logSumExp.dtype, weight.backend);
  const head = headOf(hidden, weight, targets, { ...attrs, rows: null });
  let first = 0;
  for (const block of head.blocks) {
    using _block = new Scope();
    const end = first + block.weight.shape[0]!;
    assign(slice(out, 0, first, end), mul(weightGradient(head, block, logSumExp), g));
    first = end;
  }
  return scope.keep(out);
}

/** Columns of the logits that are computed together. */
interface Block {
  /** [C, D] */
  readonly weight: Tensor;
  /** int32 [N]: the target's column in this block, outside [0, C) when it is in another. */
  readonly targets: Tensor;
  /** Columns that another block stands in for. */
  readonly dead: readonly number[];
}

/** A linear layer and what its outputs should be. */
interface Head {
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
  /** The overriding rows, then the weight in chunks. */
  readonly blocks: readonly Block[];
}

function headOf(
  hidden: Tensor,
  weight: Tensor,
  targets: Tensor,
  {
    rows,
    columns,
    softcap,
    ignoreIndex,
  }: {
    readonly rows: Tensor | null;
    readonly columns: Int32Array;
    readonly softcap: number | null;
    readonly ignoreIndex: number;
  },
): Head {
  const { backend } = weight;
  const counted = notEqual(targets, ignoreIndex);
  const wanted = where(counted, targets, -1);
  const hits = equal(unsqueeze(wanted, 1), intTensor(columns, [columns.length], backend)); // [N, k]
  const slots = sub(sum(mul(hits, add(arange(columns.length, "int32", backend), 1)), 1), 1);
  const others = where(greaterEqual(slots, 0), -1, wanted);
  const blocks: Block[] = rows ? [{ weight: rows, targets: slots, dead: [] }] : [];
  const V = weight.shape[0]!;
  for (let first = 0; first < V; first += CHUNK) {
    const chunk = slice(weight, 0, first, first + CHUNK);
    const dead = Array.from(columns, (c) => c - first).filter((c) => c >= 0 && c < chunk.shape[0]!);
    blocks.push({ weight: chunk, targets: sub(others, first), dead });
  }
  return { hidden, weight, rows, softcap, counted: unsqueeze(counted, 1), targets: others, slots, blocks };
}

/** [N, C]; −Infinity in dead columns. */
function logitsOf({ hidden, softcap }: Head, { weight, dead }: Block): Tensor {
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
const uncapped = (x: Tensor, logits: Tensor, softcap: number | null): Tensor =>
  softcap === null ? x : evaluate("mul", "a * max(0, 1 - b / c * (b / c))", x, logits, softcap);

/** What has been seen of each row of logits; [N, 1]. */
interface Seen {
  readonly max: Tensor;
  /** Σ exp(logit − max) */
  readonly sum: Tensor;
  /** The target's logit, 0 before it is found. */
  readonly picked: Tensor;
  /** Σ exp(logit − max)·∂logit/∂hidden, [N, D]; null where no gradient is wanted. */
  readonly product: Tensor | null;
}

function lookAt(head: Head, withProduct: boolean): Seen {
  let seen: Seen | null = null;
  for (const block of head.blocks) {
    using scope = new Scope();
    const before: Seen | null = seen;
    const logits = logitsOf(head, block);
    const own = maximum(max(logits, 1, true), LOWEST); // a block may have dead columns alone
    const largest = before ? maximum(before.max, own) : own;
    const exps = evaluate("exp", "exp(a - b)", logits, largest);
    const now: Seen = {
      max: largest,
      sum: sum(exps, 1, true),
      picked: pick(logits, block.targets),
      product: withProduct ? matmul(uncapped(exps, logits, head.softcap), block.weight) : null,
    };
    seen = before ? joined(before, now) : now;
    for (const t of tensorsOf(seen)) scope.keep(t);
    if (before) for (const t of tensorsOf(before)) t.dispose();
  }
  return seen!;
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

/** x [N, …] divided by the number of rows that count; 0 in the others. */
const averaged = (x: Tensor, { counted }: Head): Tensor => where(counted, div(x, sum(counted)), 0);

/** (Σ softmax·weight − the target's weight) / counted rows → [N, D] */
function hiddenGradient(head: Head, { sum: total, picked }: Seen, product: Tensor): Tensor {
  const { weight, rows, targets, slots, softcap } = head;
  const looked = takeRows(weight, targets);
  const target = rows ? add(looked, takeRows(rows, slots)) : looked;
  return averaged(sub(div(product, total), uncapped(target, picked, softcap)), head);
}

/** ((softmax − one-hot targets) / counted rows)ᵀ·hidden → [C, D] */
function weightGradient(head: Head, block: Block, logSumExp: Tensor): Tensor {
  const logits = logitsOf(head, block);
  const hits = equal(unsqueeze(block.targets, 1), arange(logits.shape[1]!, "int32", logits.backend));
  const off = evaluate("sub", "exp(a - b) - c", logits, logSumExp, hits);
  return matmul(transpose(averaged(uncapped(off, logits, head.softcap), head)), head.hidden);
}

function checkShapes(hidden: Tensor, weight: Tensor, targets: Tensor, rows: Tensor | null, columns: Int32Array): void {
  const [N, D] = hidden.shape as [number, number];
  const V = weight.shape[0];
  if (hidden.shape.length !== 2 || !V || !sameShape(weight.shape, [V, D]) || !sameShape(targets.shape, [N])) {
    throw new ShapeError(
      "linearCrossEntropy",
      "hidden [N, D], weight [V, D] and targets [N] are needed",
      hidden.shape,
      weight.shape,
      targets.shape,
    );
  }
  if (!rows) return;
  if (!sameShape(rows.shape, [columns.length, D]))
    throw new ShapeError(
      "linearCrossEntropy",
      `overriding rows must be ${formatShape([columns.length, D])}`,
      rows.shape,
    );
  const outside = columns.find((column) => column < 0 || column >= V);
  if (outside !== undefined) throw new IndexError("linearCrossEntropy", `columns must be in [0, ${V})`, outside);
}

/** A target outside would be found in no chunk. On devices that cannot be read at once it is trusted. */
function checkTargets(targets: Tensor, V: number, ignoreIndex: number): void {
  if (!targets.backend.readSync) return;
  for (const t of targets.dataSync())
    if (t !== ignoreIndex && (t < 0 || t >= V))
      throw new IndexError("linearCrossEntropy", `targets must be in [0, ${V}) or ${ignoreIndex}`, t);
}
