import { Scope, type Tensor, detach, retracked } from "@neolog/tensor";
import { leafGradients } from "./backward.ts";
import type { Vjp } from "./vjp/rule.ts";

/**
 * fn(...inputs), keeping only inputs and output: the gradient runs `fn` again. `fn` must be a pure function of its inputs and of
 * the parameters it captures. Chen et al. 2016, https://arxiv.org/abs/1604.06174
 */
export function checkpoint(fn: (...inputs: Tensor[]) => Tensor, ...inputs: Tensor[]): Tensor {
  using scope = new Scope();
  const ends = inputs.map((x) => leafLike(x));
  const y = fn(...ends);
  const captured = leavesBelow(y).filter((leaf) => !ends.includes(leaf));
  if (y.tracked)
    y.source = { op: "checkpoint", inputs: [...inputs, ...captured], attrs: { replay: fn, captured: captured.length } };
  return scope.keep(y);
}

/** x cut off from what is below it, training where x does. */
function leafLike(x: Tensor): Tensor {
  const leaf = detach(x);
  leaf.requiresGrad = x.tracked;
  return leaf;
}

function leavesBelow(y: Tensor): Tensor[] {
  const seen = new Set<Tensor>([y]);
  for (const t of seen) for (const x of t.source?.inputs ?? []) if (typeof x !== "number" && x.tracked) seen.add(x);
  return [...seen].filter((t) => t.requiresGrad);
}

export const CHECKPOINT_VJP: { readonly checkpoint: Vjp<"checkpoint"> } = {
  checkpoint: ({ inputs, attrs: { replay, captured } }, g) => {
    const given = inputs as readonly Tensor[];
    const arguments_ = given.slice(0, given.length - captured).map(leafLike);
    const leaves = leafGradients(
      retracked(() => replay(...arguments_)),
      g,
    );
    return [...arguments_, ...given.slice(given.length - captured)].map((leaf) => leaves.get(leaf) ?? null);
  },
};
