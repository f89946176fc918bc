import { Scope, type Tensor, add, assign, cast, persist, sub, untracked } from "@neolog/tensor";
import { type NonFinite, findNonFinite } from "../adapterLayer.ts";
import { copyOf } from "../copyOf.ts";

/** Updates that were written into a weight, in order, and how to take them out again. */
export class MergedWeight {
  readonly #weight: () => Tensor;
  readonly #merged: { readonly name: string; readonly before: Tensor | null }[] = [];

  constructor(weight: () => Tensor) {
    this.#weight = weight;
  }

  get names(): string[] {
    return this.#merged.map(({ name }) => name);
  }

  /** The weight without updates: itself where nothing is merged, null where it was not kept. */
  get unmerged(): Tensor | null {
    const [first] = this.#merged;
    return first ? first.before : this.#weight();
  }

  /** Writes weight + update; `exact` keeps the weight for `remove`. */
  add(name: string, update: () => Tensor, exact: boolean): void {
    untracked(() => {
      using _temporary = new Scope();
      const weight = this.#weight();
      const sum = add(weight, update());
      const before = exact ? copyOf(weight) : null;
      assign(weight, sum);
      this.#merged.push({ name, before });
    });
  }

  /** Puts the weight of before the merge back, or subtracts the update; the last one merged comes first. */
  remove(name: string, update: () => Tensor): void {
    untracked(() => {
      using _temporary = new Scope();
      const weight = this.#weight();
      const before = this.#merged.find((merged) => merged.name === name)?.before;
      assign(weight, before ?? sub(weight, update()));
      this.forget(name);
    });
  }

  /** Drops what was kept for an adapter. */
  forget(name: string): void {
    const at = this.names.indexOf(name);
    if (at >= 0) this.#merged.splice(at, 1)[0]!.before?.dispose();
  }

  /** What adding the updates one after the other would write in the end and that is NaN or infinite. */
  nonFinite(updates: readonly (() => Tensor)[]): Promise<NonFinite | null> {
    const written = untracked(() => {
      using _temporary = new Scope();
      const weight = this.#weight();
      const sum = updates.reduce((w, update) => cast(add(w, update()), weight.dtype), weight);
      return persist(cast(sum, "float32"));
    });
    return findNonFinite(written);
  }
}
