import { Scope, type Tensor, detach, retracked } from "@neolog/tensor";
import { gradientsAt } from "./backward.ts";
import type { Saved } from "./vjp/rule.ts";

/**
 * fn(...inputs), keeping only inputs and output: the gradient runs `fn` again. `fn` must be a pure function of its inputs and of
 * the tensors it captures; gradients reach both. Chen et al. 2016, https://arxiv.org/abs/1604.06174
 */
export function checkpoint(fn: (...inputs: Tensor[]) => Tensor, ...inputs: Tensor[]): Tensor {
  using scope = new Scope();
  const y = fn(...inputs.map(leafLike));
  if (!y.tracked) return scope.keep(y);
  const below = trackedBelow(y);
  const out = scope.keep(detach(y));
  scope[Symbol.dispose]();
  const captured = below.filter((t) => !t.disposed); // what `fn` made is gone
  out.source = { op: "checkpoint", inputs: [...inputs, ...captured], attrs: { replay: fn, captured: captured.length } };
  return out;
}

/** x cut off from what is below it, training where x does. */
function leafLike(x: Tensor): Tensor {
  const leaf = detach(x);
  leaf.requiresGrad = x.tracked;
  return leaf;
}

/** y and every tracked tensor that it was computed from. */
function trackedBelow(y: Tensor): Tensor[] {
  const seen = new Set<Tensor>([y]);
  for (const t of seen) for (const x of t.source?.inputs ?? []) if (typeof x !== "number" && x.tracked) seen.add(x);
  return [...seen];
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
