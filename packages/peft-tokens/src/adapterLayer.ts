import { type Linear, Module } from "@neolog/nn";
import type { Backend, Tensor } from "@neolog/tensor";
import type { Parts } from "./effective.ts";

/** Values that merging would write and that are not finite: how many, in which tensor, and where the first one is. */
export interface NonFinite {
  readonly count: number;
  readonly row: number;
  readonly column: number;
}

/** A module in the place of another, which it keeps, with a part for each adapter. Forward changes nothing. */
export abstract class AdapterLayer extends Module {
  /** The module that was here before. */
  abstract get base(): Module;
  /** Where, below the path that the unadapted model has for it, the layer sits and keeps the base: prefix of the base's keys. */
  get baseKey(): string {
    return "base_layer.";
  }
  /** As the wrapped Linear's; models read them. */
  get in_features(): number {
    return (this.base as Linear).in_features;
  }
  get out_features(): number {
    return (this.base as Linear).out_features;
  }
  /** PEFT's name of the class, for the status. */
  abstract get moduleType(): string;
  abstract get backend(): Backend;
  /** Names of the adapters with a part here. */
  abstract get adapters(): string[];
  /** No two adapters in effect may have a part here. */
  get exclusive(): boolean {
    return false;
  }
  has(name: string): boolean {
    return this.adapters.includes(name);
  }

  /** What the layer keeps of each adapter; a call can go on with what it was. */
  get parts(): Parts {
    return new Map();
  }

  /** Whether the modules that are tied to this one have the adapter's effect too. */
  holdsOnTies(_name: string): boolean {
    return false;
  }

  /** An adapter's tensors by their names below this module in a file: what trains, is saved, is loaded. */
  abstract tensorsOf(name: string): ReadonlyMap<string, Tensor>;
  /** Puts what `to` gives in the place of an adapter's tensors, which it disposes where they change. */
  abstract convert(name: string, to: (t: Tensor) => Tensor): void;
  /** Forgets an adapter's part, also one that was added only half. */
  abstract remove(name: string): void;

  /** Puts one adapter's part in the place of another's, which is forgotten. */
  abstract rename(from: string, to: string): void;

  /** Writes an adapter's effect into the base, in place. `exact`: remember enough to undo it to the bit. */
  abstract merge(name: string, exact: boolean): void;
  /** Undoes `merge`; adapters are unmerged in reverse order. */
  abstract unmerge(name: string): void;
  /** What `merge` would write after merging `earlier` ones and that is NaN or infinite. */
  abstract nonFinite(name: string, earlier: readonly string[]): Promise<NonFinite | null>;
  /** The base changed below: whatever was read from it is read again. Nothing is merged. */
  rereadBase(): void {}
}

/** Counts what is NaN or infinite in t [rows, columns] or [columns], and disposes t. */
export async function findNonFinite(t: Tensor): Promise<NonFinite | null> {
  const values = await t.data();
  const width = t.shape.at(-1)!;
  t.dispose();
  let count = 0;
  let first = -1;
  for (let i = 0; i < values.length; i++) {
    if (Number.isFinite(values[i]!)) continue;
    if (count++ === 0) first = i;
  }
  return count === 0 ? null : { count, row: Math.floor(first / width), column: first % width };
}
