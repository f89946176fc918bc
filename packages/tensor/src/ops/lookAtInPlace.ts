import { intTensor, zeros } from "../create.ts";
import { Scope } from "../scope.ts";
import type { Tensor } from "../tensor.ts";
import type { Block, Head, Seen, SeenColumns } from "./lookAt.ts";
import { matmul, matmulT } from "./matmul.ts";
import { cat, slice } from "./movement.ts";
import { evaluate } from "./pointwise.ts";

/** What a backend's `lookAtLogits` changes and reads. */
export interface LogitsArrays<T = Tensor> {
  /** [N, C]: becomes exp(logit − max)·∂logit/∂raw. */
  readonly logits: T;
  /** [N, 4]: max, Σ exp(logit − max) and the target's logit, as in `SeenColumns`, and what sums of earlier columns are to be multiplied by. */
  readonly stats: T;
  /** int32 [N]; targets[i] − first is a column of these logits, or outside them. */
  readonly targets: T;
  /** int32: columns that count as −Infinity; null for none. */
  readonly dead: T | null;
}
export interface LogitsNumbers {
  readonly first: number;
  readonly softcap: number | null;
  /** True where nothing has been seen before: `stats` holds nothing yet. */
  readonly fresh: boolean;
  /** False where nobody reads what the logits become. */
  readonly exponentials: boolean;
}

/**
 * `lookAt` in three kernels a block: the product, what is seen in it, and what that adds to the gradient by hidden. Null where the
 * backend has no such kernels for these sizes.
 */
export function lookAtInPlace(
  head: Head,
  blocks: readonly Block[],
  known: SeenColumns | null,
  withProduct: boolean,
): Seen | null {
  const { hidden, softcap } = head;
  const { backend } = hidden;
  const [N, D] = hidden.shape as [number, number];
  const widest = Math.max(0, ...blocks.map(({ weight }) => weight.shape[0]!));
  const [logits, product] = [widest, D].map((width) => ({ dtype: "float32", length: N * width }) as const);
  const kernel = backend.updates?.lookAtLogits;
  if (!kernel || widest === 0 || backend.fuses?.("lookAtLogits", [logits!, product!]) === false) return null;
  using scope = new Scope();
  const stats = known ? cat([known.max, known.sum, known.picked, known.max], 1) : zeros([N, 4], "float32", backend);
  const factor = slice(stats, 1, 3, 4);
  let total: Tensor | null = null;
  blocks.forEach(({ weight, targets, first, dead }, i) => {
    using block = new Scope();
    const x = matmulT(hidden, weight);
    const arrays = {
      logits: x,
      stats,
      targets,
      dead: dead.length > 0 ? intTensor([...dead], [dead.length], backend) : null,
    };
    kernel(viewed(arrays), { first, softcap, fresh: i === 0 && !known, exponentials: withProduct });
    if (withProduct) total = block.keep(total ? grown(total, x, weight, factor) : matmul(x, weight));
  });
  const [max, sum, picked] = [0, 1, 2].map((i) => scope.keep(slice(stats, 1, i, i + 1))) as [Tensor, Tensor, Tensor];
  return { max, sum, picked, product: total && scope.keep(total) };
}

const viewed = ({ logits, stats, targets, dead }: LogitsArrays): LogitsArrays<ReturnType<Tensor["view"]>> => {
  const [x, seen, ids] = [logits, stats, targets].map((t) => t.view("lookAtLogits"));
  return { logits: x!, stats: seen!, targets: ids!, dead: dead && dead.view("lookAtLogits") };
};

/** total·factor + a·b, in place where the backend can. */
function grown(total: Tensor, a: Tensor, b: Tensor, factor: Tensor): Tensor {
  const [out, x, y, f] = [total, a, b, factor].map((t) => t.view("addMatmul"));
  if (total.backend.updates?.addMatmul?.(out!, x!, y!, f!)) return total;
  const next = evaluate("add", "a * b + c", total, factor, matmul(a, b));
  total.dispose();
  return next;
}
