import { Linear, type LinearHead, type MaybeLinearHead, Module, type TiedHead } from "@neolog/nn";
import { type Backend, type Tensor, assign, cast, persist, untracked } from "@neolog/tensor";
import { AdapterLayer, type NonFinite, findNonFinite } from "../adapterLayer.ts";
import type { EffectiveSet } from "../effective.ts";
import { ConfigError } from "../errors.ts";
import { copyOf } from "../copyOf.ts";

/** A module that can be copied. */
export interface Copyable extends Module {
  copy(copied: (t: Tensor) => Tensor): Module;
}
export const isCopyable = (module: Module): module is Copyable =>
  typeof (module as Partial<Copyable>).copy === "function";

/** A copy with tensors of its own; a tied head becomes a Linear with a copy of `table`. */
export function copyOfModule(module: Copyable | TiedHead, table: () => Tensor): Module {
  return untracked(() => {
    if (isCopyable(module)) return module.copy(copyOf);
    return new Linear(copyOf(table()), module.bias && copyOf(module.bias));
  });
}

/** A module that adapters train in full: each has its own copy, and at most one is in effect. */
export class ModulesToSaveWrapper extends AdapterLayer {
  readonly original_module: Module;
  /** Adapter name → its copy. */
  readonly modules_to_save: Record<string, Module> = {};
  readonly #tied = new Map<string, boolean>();
  readonly #state: EffectiveSet;
  readonly #table: () => Tensor;
  /** The original's values before each merge. */
  readonly #before = new Map<string, Module>();

  /** `table` finds the weight that a tied head reads. */
  constructor(original: Module, state: EffectiveSet, table: () => Tensor) {
    super();
    this.original_module = original;
    this.#state = state;
    this.#table = table;
  }

  get base(): Module {
    return this.original_module;
  }
  override get baseKey(): string {
    return "original_module.";
  }
  get moduleType(): string {
    return "ModulesToSaveWrapper";
  }
  override get exclusive(): boolean {
    return true;
  }
  get backend(): Backend {
    return this.#table().backend;
  }
  get adapters(): string[] {
    return Object.keys(this.modules_to_save);
  }
  override holdsOnTies(name: string): boolean {
    return this.#tied.get(name) ?? false;
  }
  tensorsOf(name: string): ReadonlyMap<string, Tensor> {
    return new Map(this.modules_to_save[name]?.namedParameters());
  }
  get weight(): unknown {
    return (this.#inEffect as { weight?: unknown }).weight;
  }
  get bias(): unknown {
    return (this.#inEffect as { bias?: unknown }).bias ?? null;
  }
  get padding_idx(): unknown {
    return (this.original_module as { padding_idx?: unknown }).padding_idx ?? null;
  }

  /** Adds a copy of the original as it is without what is merged; `tied`: modules tied to this one use it too. */
  add(name: string, tied: boolean): void {
    const unmerged = this.#before.values().next().value ?? this.original_module;
    this.modules_to_save[name] = copyOfModule(unmerged as Copyable | TiedHead, this.#table);
    this.#tied.set(name, tied);
  }
  convert(name: string, to: (t: Tensor) => Tensor): void {
    this.modules_to_save[name] = (this.modules_to_save[name] as Copyable).copy(to);
  }
  remove(name: string): void {
    for (const t of this.modules_to_save[name]?.parameters() ?? []) t.dispose();
    for (const t of this.#before.get(name)?.parameters() ?? []) t.dispose();
    this.#before.delete(name);
    this.#tied.delete(name);
    delete this.modules_to_save[name];
  }

  rename(from: string, to: string): void {
    const copy = this.modules_to_save[from]!;
    const tied = this.#tied.get(from)!;
    this.remove(to);
    this.modules_to_save[to] = copy;
    this.#tied.set(to, tied);
    delete this.modules_to_save[from];
    this.#tied.delete(from);
  }

  get #applied(): string | undefined {
    const [name] = this.#state.applied.filter((adapter) => this.has(adapter));
    if (name === undefined || this.#state.samplesOf(name) === null) return name;
    const message = `adapterNames: samples must not differ in modules_to_save, which train all of a module, got ${name} for some`;
    throw new ConfigError("UNSUPPORTED", message, { name });
  }
  get #inEffect(): Module {
    const name = this.#applied;
    return name === undefined ? this.#stored : this.modules_to_save[name]!;
  }
  /** The original, without what is merged while adapters are disabled. */
  get #stored(): Module {
    return (this.#state.enabled ? undefined : this.#before.values().next().value) ?? this.original_module;
  }

  /** As the module in effect. */
  forward(...args: unknown[]): unknown {
    return this.#inEffect.forward(...(args as never[]));
  }
  /** hidden [..., hidden] → logits [..., vocab], through a tied head: of the copy where the adapter ties them, else the original's. */
  unembed(x: Tensor): Tensor {
    return (this.#unembeds as unknown as { unembed(x: Tensor): Tensor }).unembed(x);
  }
  get #unembeds(): Module {
    const name = this.#applied;
    return name !== undefined && this.holdsOnTies(name) ? this.modules_to_save[name]! : this.#stored;
  }
  /** Of `forward` around a head, of `unembed` around an embedding. */
  linearHead(): LinearHead | null {
    const module = "unembed" in this.#stored ? this.#unembeds : this.#inEffect;
    return (module as MaybeLinearHead).linearHead?.() ?? null;
  }

  merge(name: string): void {
    this.#before.set(name, copyOfModule(this.original_module as Copyable, this.#table));
    this.#write(this.modules_to_save[name]!);
  }
  unmerge(name: string): void {
    const before = this.#before.get(name)!;
    this.#write(before);
    this.#before.delete(name);
    for (const t of before.parameters()) t.dispose();
  }
  #write(source: Module): void {
    const values = new Map(source.namedParameters());
    for (const [key, t] of this.original_module.namedParameters()) assign(t, values.get(key)!);
  }

  async nonFinite(name: string): Promise<NonFinite | null> {
    for (const t of this.modules_to_save[name]!.parameters()) {
      const found = await findNonFinite(untracked(() => persist(copyOf(cast(t, "float32")))));
      if (found) return found;
    }
    return null;
  }
}
