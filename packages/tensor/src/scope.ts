import type { Tensor } from "./tensor.ts";

let current: Scope | null = null;

/**
 * Disposes every tensor that was made while it was the innermost scope, except those kept:
 * `{ using scope = new Scope(); … scope.keep(t); }`. Kept tensors pass to the scope outside, or live until `dispose()`.
 * Scopes of interleaved async functions may end in any order.
 */
export class Scope implements Disposable {
  readonly #tensors = new Set<Tensor>();
  readonly #parent = current;
  #ended = false;

  constructor() {
    current = this;
  }

  /** Lets `t` outlive this scope; returns it. */
  keep<T extends Tensor>(t: T): T {
    if (this.#tensors.delete(t)) living(this.#parent)?.adopt(t);
    return t;
  }

  /** Whether `t` ends with this scope. */
  holds(t: Tensor): boolean {
    return this.#tensors.has(t);
  }

  [Symbol.dispose](): void {
    if (this.#ended) return;
    this.#ended = true;
    for (const t of this.#tensors) t.dispose();
    this.#tensors.clear();
    current = living(current);
  }

  get ended(): boolean {
    return this.#ended;
  }
  get parent(): Scope | null {
    return this.#parent;
  }
  adopt(t: Tensor): void {
    this.#tensors.add(t);
  }
  release(t: Tensor): void {
    this.#tensors.delete(t);
  }
}

/** The innermost scope from `scope` outward that has not ended. */
function living(scope: Scope | null): Scope | null {
  let innermost = scope;
  while (innermost?.ended) innermost = innermost.parent;
  return innermost;
}

/** Hands a new tensor to the innermost scope. */
export function adopt(t: Tensor): void {
  current?.adopt(t);
}

/** Takes `t` out of every scope: it lives until `dispose()`. */
export function release(t: Tensor): void {
  for (let scope = current; scope; scope = scope.parent) scope.release(t);
}
