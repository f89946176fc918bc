import {
  Scope,
  ShapeError,
  type OpName,
  type Tensor,
  add,
  detach,
  onesLike,
  sameShape,
  untracked,
} from "@neolog/tensor";
import { VJP } from "./vjp/index.ts";
import { sumTo } from "./vjp/movement.ts";
import type { Vjp } from "./vjp/rule.ts";

/** `backward` was called on something that no gradient can leave. */
export class GradientError extends Error {
  override readonly name = "GradientError";
}

/** Runs `f` without recording: results made inside carry no gradient. `f` must be synchronous. */
export const noGrad = untracked;

/**
 * Adds ∂loss/∂p to `p.grad` for every leaf p with `requiresGrad` that `loss` depends on. `loss` is a scalar unless `gradient`
 * (∂/∂loss, of its shape) is given. The graph is used up: each node is released after its rule ran.
 * Throws GradientError when nothing that trains is below `loss`, ShapeError when it is no scalar.
 */
export function backward(loss: Tensor, gradient?: Tensor): void {
  if (!loss.tracked) {
    throw new GradientError(
      "backward: loss must depend on a tensor with requiresGrad, got one that does not (or whose graph was used up)",
    );
  }
  if (!gradient && loss.size !== 1)
    throw new ShapeError("backward", "loss must be a scalar unless a gradient is given", loss.shape);
  if (gradient && !sameShape(gradient.shape, loss.shape)) {
    throw new ShapeError("backward", "the gradient must have the loss's shape", gradient.shape, loss.shape);
  }
  untracked(() => {
    for (const [leaf, g] of leafGradients(loss, gradient ?? onesLike(loss))) {
      leaf.grad = leaf.grad ? add(leaf.grad, g) : g;
    }
  });
}

/** ∂/∂leaf for every leaf with `requiresGrad` below y, given g = ∂/∂y. Uses the graph up. */
export function leafGradients(y: Tensor, g: Tensor): Map<Tensor, Tensor> {
  const leaves = new Map<Tensor, Tensor>();
  const grads = new Map<Tensor, Tensor>([[y, detach(g)]]);
  for (const node of topological(y)) {
    const incoming = grads.get(node);
    grads.delete(node);
    if (!incoming) continue;
    if (node.source) propagate(node, incoming, grads);
    if (node.requiresGrad) leaves.set(node, incoming);
    else incoming.dispose();
  }
  return leaves;
}

/** Every tracked tensor below `root`, each before its inputs. Iterative: graphs are deeper than the call stack. */
function topological(root: Tensor): Tensor[] {
  const postorder: Tensor[] = [];
  const seen = new Set<Tensor>([root]);
  const stack: { tensor: Tensor; next: number }[] = [{ tensor: root, next: 0 }];
  while (stack.length > 0) {
    const top = stack.at(-1)!;
    const input = top.tensor.source?.inputs[top.next++];
    if (input === undefined) {
      postorder.push(top.tensor);
      stack.pop();
    } else if (typeof input !== "number" && input.tracked && !seen.has(input)) {
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
  const rule = VJP[op] as Vjp<OpName>;
  rule({ inputs, attrs: attrs as never, y }, g).forEach((gx, i) => {
    const x = inputs[i]!;
    if (!gx || typeof x === "number" || !x.tracked) return;
    const known = grads.get(x);
    const summed = sumTo(gx, x.shape);
    grads.set(x, scope.keep(known ? add(known, summed) : summed === g ? detach(g) : summed));
  });
  y.source = null;
}
