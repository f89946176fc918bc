import { Scope, type Tensor, detach, retracked } from "@neolog/tensor";
import { gradientsAt } from "./backward.ts";
import { graphBelow, savedBytes, trim } from "./lean.ts";
import type { Saved } from "./vjp/rule.ts";

/**
 * fn(...inputs), keeping only inputs and output: the gradient runs `fn` again. `fn` must be a pure function of its inputs and of
 * the tensors it captures; gradients reach both. Chen et al. 2016, https://arxiv.org/abs/1604.06174
 */
export function checkpoint(fn: (...inputs: Tensor[]) => Tensor, ...inputs: Tensor[]): Tensor {
  return checkpointUnless(() => false, fn, ...inputs);
}

/** The same where `fits` refuses the bytes that the gradient would read otherwise; those are kept, as `lean` keeps them, where it agrees. */
export function checkpointUnless(
  fits: (bytes: number) => boolean,
  fn: (...inputs: Tensor[]) => Tensor,
  ...inputs: Tensor[]
): Tensor {
  using scope = new Scope();
  const y = fn(...inputs);
  if (!y.tracked) return scope.keep(y);
  const graph = graphBelow(y, scope);
  if (fits(savedBytes(graph, scope))) {
    trim(graph, y, scope);
    return scope.keep(y);
  }
  const captured = [...graph.ends].filter((t) => !inputs.includes(t));
  const out = scope.keep(detach(y));
  out.source = { op: "checkpoint", inputs: [...inputs, ...captured], attrs: { replay: fn, captured: captured.length } };
  return out;
}

/** x cut off from what is below it, training where x does. */
function leafLike(x: Tensor): Tensor {
  const leaf = detach(x);
  leaf.requiresGrad = x.tracked;
  return leaf;
}

/** The rule of a checkpointed tensor. A function declaration: `backward`, which it calls, imports the table that holds it. */
export function replayed({ inputs, attrs: { replay, captured } }: Saved<"checkpoint">, g: Tensor): (Tensor | null)[] {
  const given = inputs as readonly Tensor[];
  const split = given.length - captured;
  const ends = [...given.slice(0, split).map(leafLike), ...given.slice(split)];
  const y = retracked(() => replay(...ends.slice(0, split)));
  const gradients = gradientsAt(ends, y, g);
  return ends.map((end) => gradients.get(end) ?? null);
}
