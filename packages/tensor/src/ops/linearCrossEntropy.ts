import { arange, assign, intTensor, zeros } from "../create.ts";
import { DerivativeError, IndexError, ShapeError, formatShape } from "../errors.ts";
import { sameShape } from "../layout.ts";
import { provenance, records, untracked } from "../op.ts";
import { Scope } from "../scope.ts";
import type { Tensor } from "../tensor.ts";
import { type Block, type Head, type Seen, type SeenColumns, logitsOf, lookAt, uncapped } from "./lookAt.ts";
import { matmul } from "./matmul.ts";
import { reshape, slice, transpose, unsqueeze } from "./movement.ts";
import { add, div, equal, evaluate, greaterEqual, log, mul, notEqual, sub, where } from "./pointwise.ts";
import { sum } from "./reduce.ts";
import { takeRows } from "./rows.ts";

/** Columns of logits that exist at a time: 1.5 MiB of float32 for 128 rows. Products with their gradient add up blocks of 1,536. */
const CHUNK = 3072;

export interface LinearCrossEntropyOptions {
  /** Rows with this target count for nothing; −100 by default. */
  readonly ignoreIndex?: number;
  /** Logits become softcap·tanh(logit / softcap). */
  readonly softcap?: number | null;
  /** rows [k, D] that stand in for the rows `columns` of the weight; columns are distinct. */
  readonly override?: { readonly rows: Tensor; readonly columns: Int32Array } | null;
  /** "mean" over the rows that count, [], by default; "none": the loss of each, [N], 0 where it counts for nothing. */
  readonly reduction?: Reduction;
  /** What `frozenColumns` found in the columns that are not overridden: they are not looked at again. Hidden gets no gradient then. */
  readonly frozen?: SeenColumns | null;
}
type Reduction = "mean" | "none";

/** What the gradient needs; gradients in it are those for an incoming 1, null where none is wanted. */
export interface LinearCrossEntropyAttrs {
  readonly reduction: Reduction;
  readonly ignoreIndex: number;
  readonly softcap: number | null;
  readonly columns: Int32Array;
  /** log Σ exp of the logits, [N, 1] */
  readonly logSumExp: Tensor;
  /** [N, D] */
  readonly hiddenGrad: Tensor | null;
  /** [k, D]; null for a loss of each row too, whose gradient is not yet known. */
  readonly rowsGrad: Tensor | null;
}

/**
 * crossEntropy(matmulT(hidden, weight), targets) by chunks of the vocabulary: the [N, V] logits never exist. hidden [N, D],
 * weight [V, D] of any float dtype, targets int32 [N] → []. The gradients by hidden and by overriding rows come out of the same
 * pass: Σ exp(logit)·weight grows beside Σ exp(logit), both rescaled when a larger logit turns up, as in flash attention.
 * Overriding rows come last, so that what the other columns give can be found beforehand, to the bit. Throws IndexError for a target
 * that is neither a row of the weight nor `ignoreIndex`, DerivativeError where hidden needs a gradient and columns are frozen.
 * Dao et al. 2022, https://arxiv.org/abs/2205.14135
 */
export function linearCrossEntropy(
  hidden: Tensor,
  weight: Tensor,
  targets: Tensor,
  {
    ignoreIndex = -100,
    softcap = null,
    override = null,
    reduction = "mean",
    frozen = null,
  }: LinearCrossEntropyOptions = {},
): Tensor {
  const { rows, columns } = override?.columns.length ? override : { rows: null, columns: new Int32Array() };
  checkShapes(hidden, weight, targets, rows, columns);
  checkTargets(targets, weight.shape[0]!, ignoreIndex);
  const [forHidden, forRows] = [records([hidden]), rows !== null && records([rows])];
  if (forHidden && frozen) throw new DerivativeError("linearCrossEntropy with frozen columns");
  using scope = new Scope();
  const { loss, ...found } = untracked(() => {
    const head = headOf(hidden, weight, targets, { rows, columns, softcap, ignoreIndex });
    const blocks = frozen ? head.overriding : [...head.chunks(), ...head.overriding];
    const seen = lookAt(head, blocks, frozen, forHidden);
    const logSum = log(seen.sum);
    const logSumExp = add(seen.max, logSum);
    const losses = where(head.counted, sub(logSum, sub(seen.picked, seen.max)), 0); // [N, 1]
    const mean = reduction === "mean";
    const share = mean ? (x: Tensor) => averaged(x, head) : (x: Tensor) => where(head.counted, x, 0);
    const [block] = head.overriding;
    return {
      loss: scope.keep(mean ? div(sum(losses), sum(head.counted)) : reshape(losses, targets.shape)),
      logSumExp: scope.keep(logSumExp),
      hiddenGrad: seen.product && scope.keep(hiddenGradient(head, seen, seen.product, share)),
      rowsGrad: mean && forRows ? scope.keep(weightGradient(head, block!, logSumExp, share)) : null,
    };
  });
  const inputs = rows ? [hidden, weight, targets, rows] : [hidden, weight, targets];
  loss.source = provenance("linearCrossEntropy", inputs, { reduction, ignoreIndex, softcap, columns, ...found });
  return loss;
}

/**
 * What `linearCrossEntropy` finds in the columns of the weight that nothing overrides, for its option `frozen`: they need to be looked
 * at once where neither hidden nor weight ever changes. Records nothing.
 */
export function frozenColumns(
  hidden: Tensor,
  weight: Tensor,
  targets: Tensor,
  overridden: Int32Array,
  { ignoreIndex = -100, softcap = null }: Pick<LinearCrossEntropyOptions, "ignoreIndex" | "softcap"> = {},
): SeenColumns {
  checkShapes(hidden, weight, targets, null, overridden);
  checkTargets(targets, weight.shape[0]!, ignoreIndex);
  using scope = new Scope();
  return untracked(() => {
    const head = headOf(hidden, weight, targets, { rows: null, columns: overridden, softcap, ignoreIndex });
    const { max, sum, picked } = lookAt(head, head.chunks(), null, false);
    for (const t of [max, sum, picked]) scope.keep(t);
    return { max, sum, picked };
  });
}

/** Its gradient by the weight for an incoming g, [] or [N]: 0 in overridden rows. The logits are computed again. → [V, D] */
export function linearCrossEntropyWeightGrad(
  hidden: Tensor,
  weight: Tensor,
  targets: Tensor,
  { logSumExp, reduction, ...attrs }: LinearCrossEntropyAttrs,
  g: Tensor,
): Tensor {
  using scope = new Scope();
  const out = zeros(weight.shape, logSumExp.dtype, weight.backend);
  const head = headOf(hidden, weight, targets, { ...attrs, rows: null });
  for (const block of head.chunks()) {
    using _block = new Scope();
    const gradient = weightGradient(head, block, logSumExp, incoming(head, reduction, g));
    assign(slice(out, 0, block.first, block.first + block.weight.shape[0]!), gradient);
  }
  return scope.keep(out);
}

/** The same by the overriding rows. → [k, D] */
export function linearCrossEntropyRowsGrad(
  hidden: Tensor,
  weight: Tensor,
  targets: Tensor,
  rows: Tensor,
  { logSumExp, reduction, ...attrs }: LinearCrossEntropyAttrs,
  g: Tensor,
): Tensor {
  using scope = new Scope();
  const head = headOf(hidden, weight, targets, { ...attrs, rows });
  return scope.keep(weightGradient(head, head.overriding[0]!, logSumExp, incoming(head, reduction, g)));
}

/** What makes gradients of each row's loss, [N, …], those for an incoming g: [] for their mean, [N] for each. */
const incoming =
  (head: Head, reduction: Reduction, g: Tensor): Share =>
  (x) =>
    reduction === "mean" ? mul(averaged(x, head), g) : where(head.counted, mul(x, unsqueeze(g, 1)), 0);
type Share = (x: Tensor) => Tensor;

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
  const overriding: Block[] = rows ? [{ weight: rows, targets: slots, first: 0, dead: [] }] : [];
  const chunks = (): Block[] => {
    const V = weight.shape[0]!;
    return Array.from({ length: Math.ceil(V / CHUNK) }, (_, i) => {
      const first = i * CHUNK;
      const chunk = slice(weight, 0, first, first + CHUNK);
      const dead = Array.from(columns, (c) => c - first).filter((c) => c >= 0 && c < chunk.shape[0]!);
      return { weight: chunk, targets: others, first, dead };
    });
  };
  return { hidden, weight, rows, softcap, counted: unsqueeze(counted, 1), targets: others, slots, chunks, overriding };
}

/** x [N, …] divided by the number of rows that count; 0 in the others. */
const averaged = (x: Tensor, { counted }: Head): Tensor => where(counted, div(x, sum(counted)), 0);

/** Σ softmax·weight − the target's weight, shared out → [N, D] */
function hiddenGradient(head: Head, { sum: total, picked }: Seen, product: Tensor, share: Share): Tensor {
  const { weight, rows, targets, slots, softcap } = head;
  const looked = takeRows(weight, targets);
  const target = rows ? add(looked, takeRows(rows, slots)) : looked;
  return share(sub(div(product, total), uncapped(target, picked, softcap)));
}

/** (softmax − one-hot targets, shared out)ᵀ·hidden → [C, D] */
function weightGradient(head: Head, block: Block, logSumExp: Tensor, share: Share): Tensor {
  const logits = logitsOf(head, block);
  const hits = equal(unsqueeze(sub(block.targets, block.first), 1), arange(logits.shape[1]!, "int32", logits.backend));
  const off = evaluate("sub", "exp(a - b) - c", logits, logSumExp, hits);
  return matmul(transpose(share(uncapped(off, logits, head.softcap))), head.hidden);
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
