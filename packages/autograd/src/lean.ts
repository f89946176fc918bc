import { BYTES_PER_ELEMENT, Scope, type Tensor } from "@neolog/tensor";
import { savedBy } from "./vjp/saved.ts";

/**
 * fn(), keeping of what it made only the result and what the gradient reads: with frozen weights a linear layer needs nothing of its
 * input, an addition nothing at all. Everything else that `fn` made, and did not take out of its scope with `persist`, is disposed;
 * so a `checkpoint` inside may capture nothing that `fn` made.
 */
export function lean(fn: () => Tensor): Tensor {
  using scope = new Scope();
  const y = fn();
  if (!scope.holds(y)) return y;
  if (y.tracked) trim(graphBelow(y, scope), y, scope);
  return scope.keep(y);
}

/** What a function made in a scope that a gradient passes through. */
export interface Graph {
  /** Made inside, inputs of every kind included. */
  readonly made: ReadonlySet<Tensor>;
  /** Tracked tensors from outside: where the gradient leaves. */
  readonly ends: ReadonlySet<Tensor>;
  /** Values that rules read, from inside and from outside. */
  readonly saved: ReadonlySet<Tensor>;
}

/** The graph of y down to where `scope` begins. */
export function graphBelow(y: Tensor, scope: Scope): Graph {
  const [made, ends, saved] = [new Set<Tensor>(), new Set<Tensor>(), new Set<Tensor>()];
  (scope.holds(y) ? made : ends).add(y);
  for (const t of made) {
    if (!t.source) continue;
    for (const x of savedBy(t, t.source)) saved.add(x);
    for (const x of t.source.inputs) {
      if (typeof x === "number") continue;
      if (scope.holds(x)) made.add(x);
      else if (x.tracked) ends.add(x);
    }
  }
  return { made, ends, saved };
}

/** Lets the graph outlive the scope, without values that nobody reads. Leaves keep theirs: they are somebody's. */
export function trim({ made, saved }: Graph, y: Tensor, scope: Scope): void {
  for (const t of made) if (t !== y && !saved.has(t) && !t.requiresGrad) t.forget();
  for (const t of [...made, ...saved]) scope.keep(t);
}

/** Bytes of the values that a graph keeps from its scope, each buffer counted once. */
export function savedBytes({ saved }: Graph, scope: Scope): number {
  const buffers = new Set([...saved].filter((t) => scope.holds(t)).map((t) => t.view("savedBytes").buffer));
  return [...buffers].reduce((bytes, { dtype, length }) => bytes + length * BYTES_PER_ELEMENT[dtype], 0);
}
