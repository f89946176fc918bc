import {
  DisposedError,
  type OpName,
  Scope,
  ShapeError,
  type Source,
  type Tensor,
  add,
  addMatmul,
  detach,
  onesLike,
  sameShape,
  transpose,
  untracked,
} from "@neolog/tensor";
import { VJP } from "./vjp/index.ts";
import { sumTo } from "./vjp/movement.ts";
import type { Vjp } from "./vjp/rule.ts";
import { SliceGradients } from "./sliceGradients.ts";

/** A gradient was asked for that cannot be had, or is not what differences say. */
export class GradientError extends Error {
  override readonly name = "GradientError";
}

const USED_UP =
  "a graph can be used once, got a tensor whose graph an earlier backward used up; call backward on the sum of the losses, or detach the tensor";

/** Results whose provenance a walk has used up: no gradient passes them any more. */
const used = new WeakSet<Tensor>();

/** Runs `f` without recording: results made inside carry no gradient. `f` must be synchronous. */
export const noGrad = untracked;

/**
 * Adds ∂loss/∂p to `p.grad` for every leaf p with `requiresGrad` that `loss` depends on. `loss` has one element unless `gradient`,
 * ∂/∂loss of its shape, is given. Each node is released once its rule has run, so a graph serves one `backward`; new gradients live
 * as long as the scope around this call, those they add to are disposed. Throws GradientError when there is nothing to train or the
 * graph was used before, ShapeError when loss and gradient do not fit, DisposedError when part of the graph is gone.
 */
export function backward(loss: Tensor, gradient?: Tensor): void {
  if (used.has(loss) && !loss.tracked) throw new GradientError(`backward: ${USED_UP}`);
  if (!loss.tracked) {
    throw new GradientError(
      "backward: nothing to train: the loss must depend on a tensor with requiresGrad, got one that does not; make it with parameter(t), outside noGrad",
    );
  }
  if (!gradient && loss.size !== 1)
    throw new ShapeError("backward", "loss must have one element unless a gradient is given", loss.shape);
  if (gradient && !sameShape(gradient.shape, loss.shape))
    throw new ShapeError("backward", "the gradient must have the loss's shape", gradient.shape, loss.shape);
  untracked(() => {
    using scope = new Scope();
    for (const [leaf, g] of gradientsAt([], loss, gradient ?? onesLike(loss))) {
      const known = leaf.grad;
      leaf.grad = scope.keep(known ? add(known, g) : g);
      known?.dispose();
    }
  });
}

/** ∂/∂t for every leaf with `requiresGrad` and every tensor of `ends` below y, given g = ∂/∂y. Uses the graph down to them up. */
export function gradientsAt(ends: readonly Tensor[], y: Tensor, g: Tensor): Map<Tensor, Tensor> {
  const stop = new Set(ends);
  const found = new Map<Tensor, Tensor>();
  const grads = new Map<Tensor, Tensor>([[y, detach(g)]]);
  const written = new SliceGradients();
  for (const node of topological(y, stop)) {
    const incoming = grads.get(node);
    grads.delete(node);
    if (!incoming) continue;
    if (node.source && !stop.has(node)) {
      if (!written.fill(node, incoming, grads)) propagate(node, incoming, grads);
      node.source = null;
      used.add(node);
    }
    if (node.requiresGrad || stop.has(node)) found.set(node, incoming);
    else incoming.dispose();
  }
  return found;
}

/** Every tracked tensor from `root` down to `stop`, each before its inputs. Iterative: graphs are deeper than the call stack. */
function topological(root: Tensor, stop: ReadonlySet<Tensor>): Tensor[] {
  const postorder: Tensor[] = [];
  const seen = new Set<Tensor>([root]);
  const stack: { tensor: Tensor; next: number }[] = [{ tensor: root, next: 0 }];
  while (stack.length > 0) {
    const top = stack.at(-1)!;
    const source = stop.has(top.tensor) ? null : top.tensor.source;
    const input = source?.inputs[top.next++];
    if (input === undefined) {
      postorder.push(top.tensor);
      stack.pop();
    } else if (typeof input !== "number" && !seen.has(input)) {
      // a gradient that would end here unnoticed
      if (input.disposed) throw new DisposedError(`backward through ${source!.op}`, input.shape);
      if (used.has(input) && !input.tracked) throw new GradientError(`backward through ${source!.op}: ${USED_UP}`);
      if (!input.tracked) continue;
      seen.add(input);
      stack.push({ tensor: input, next: 0 });
    }
  }
  return postorder.toReversed();
}

/** Runs the rule of y's op, sums broadcasting away, and adds the results to the gradients of the inputs. */
function propagate(y: Tensor, g: Tensor, grads: Map<Tensor, Tensor>): void {
  using scope = new Scope();
  const { op, inputs, attrs } = y.source!;
  if (addProduct(y.source!, g, grads, scope)) return;
  const rule = VJP[op] as Vjp<OpName>;
  const gradients = rule({ inputs, attrs, y }, g);
  inputs.forEach((x, i) => {
    const gx = gradients[i];
    if (!gx || typeof x === "number" || !x.tracked) return;
    const summed = sumTo(gx, x.shape);
    const known = grads.get(x);
    grads.set(x, scope.keep(known ? add(known, summed) : detach(summed))); // a rule may answer several inputs with one tensor
    known?.dispose();
  });
}

/** Adds the gradient of a product by a frozen matrix to one that is there already, in place where only this walk sees it; false elsewhere. */
function addProduct({ op, inputs }: Source, g: Tensor, grads: Map<Tensor, Tensor>, scope: Scope): boolean {
  if (op !== "matmul") return false;
  const [a, b] = inputs as readonly [Tensor, Tensor];
  const known = grads.get(a);
  if (!known || b.tracked || !addMatmul(known, g, transpose(b))) return false;
  // a tensor of its own: what is known of the old one's parts no longer holds
  grads.set(a, scope.keep(detach(known)));
  known.dispose();
  return true;
}
