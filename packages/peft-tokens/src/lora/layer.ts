import { Conv1D, Linear, type LinearHead, type TiedHead } from "@neolog/nn";
import { type Backend, type Tensor, add, cast, linear, matmul, matmulT, mul, transpose, where } from "@neolog/tensor";
import { AdapterLayer, type NonFinite } from "../adapterLayer.ts";
import type { EffectiveSet, Parts, Samples } from "../effective.ts";
import { AdapterError } from "../errors.ts";
import { maskOf } from "../samples.ts";
import { dropped } from "./dropout.ts";
import { MergedWeight } from "./mergedWeight.ts";

/** What a layer has from its model. */
export interface LoraContext {
  readonly state: EffectiveSet;
  /** The module, for messages. */
  readonly path: string;
  /** The weight that merging changes: the base layer's own, or the one that a tied head shares. */
  readonly weight: () => Tensor;
}

/** An adapter's part of a layer. */
export interface LoraPart {
  readonly A: Tensor;
  readonly B: Tensor;
  readonly scale: number;
  readonly dropout: number;
}

/** A layer that kept no weight cannot be disabled while it is merged. */
export const mergedError = (path: string, names: readonly string[]): AdapterError =>
  new AdapterError(
    "MERGED",
    `${path}: adapters must be unmerged to be disabled, got ${names.join(", ")} merged with exactUnmerge: false; unmerge first`,
    { module: path, names },
  );

/** y plus an update, at the samples to which it applies: y [..., n], update [..., n]. */
export function added(y: Tensor, update: Tensor, samples: Samples | null): Tensor {
  const sum = add(y, cast(update, y.dtype));
  return samples ? where(maskOf(samples, y), sum, y) : sum;
}

/** y = base(x) + Σ s·((dropout(x)·Aᵀ)·Bᵀ), A [r, in], B [out, r]. Hu et al. 2021, https://arxiv.org/abs/2106.09685 */
export class LoraLayer extends AdapterLayer {
  readonly base_layer: Linear | Conv1D | TiedHead;
  /** Adapter name → A, as the weight of a Linear. */
  readonly lora_A: Record<string, Linear> = {};
  /** Adapter name → B, as the weight of a Linear. */
  readonly lora_B: Record<string, Linear> = {};
  readonly #parts = new Map<string, LoraPart>();
  readonly #context: LoraContext;
  readonly #merged: MergedWeight;

  constructor(base: Linear | Conv1D | TiedHead, context: LoraContext) {
    super();
    this.base_layer = base;
    this.#context = context;
    this.#merged = new MergedWeight(context.weight);
  }

  get base(): Linear | Conv1D | TiedHead {
    return this.base_layer;
  }
  get moduleType(): string {
    return "lora.Linear";
  }
  get backend(): Backend {
    return this.#context.weight().backend;
  }
  get adapters(): string[] {
    return [...this.#parts.keys()];
  }
  partOf(name: string): LoraPart {
    return this.#parts.get(name)!;
  }
  override get parts(): Parts {
    return this.#parts;
  }
  tensorsOf(name: string): ReadonlyMap<string, Tensor> {
    const part = this.#parts.get(name);
    return new Map(
      part
        ? [
            ["lora_A.weight", part.A],
            ["lora_B.weight", part.B],
          ]
        : [],
    );
  }

  add(name: string, part: LoraPart): void {
    this.#parts.set(name, part);
    this.lora_A[name] = new Linear(part.A);
    this.lora_B[name] = new Linear(part.B);
  }
  convert(name: string, to: (t: Tensor) => Tensor): void {
    const part = this.#parts.get(name)!;
    this.add(name, { ...part, A: to(part.A), B: to(part.B) });
  }
  remove(name: string): void {
    const part = this.#parts.get(name);
    part?.A.dispose();
    part?.B.dispose();
    this.#merged.forget(name);
    this.#parts.delete(name);
    delete this.lora_A[name];
    delete this.lora_B[name];
  }

  rename(from: string, to: string): void {
    const part = this.#parts.get(from)!;
    this.remove(to);
    this.add(to, part);
    this.#parts.delete(from);
    delete this.lora_A[from];
    delete this.lora_B[from];
  }

  /** x [..., in] → [..., out] */
  forward(x: Tensor): Tensor {
    const { state } = this.#context;
    let y = this.#base(x);
    for (const [name, { A, B, scale, dropout }] of state.appliedParts(this.#parts)) {
      const input = state.training && dropout > 0 ? dropped(x, dropout, state.nextDropoutSeed()) : x;
      y = added(y, mul(matmulT(matmulT(input, A), B), scale), state.samplesOf(name));
    }
    return y;
  }

  /** The base's where no adapter adds to it; null otherwise. */
  linearHead(): LinearHead | null {
    const { state } = this.#context;
    const plain = state.enabled || this.#merged.names.length === 0;
    const { base_layer: base } = this;
    return plain && state.appliedParts(this.#parts).length === 0 && "linearHead" in base ? base.linearHead() : null;
  }

  #base(x: Tensor): Tensor {
    if (this.#context.state.enabled || this.#merged.names.length === 0) return this.base_layer.forward(x);
    const weight = this.#merged.unmerged;
    if (!weight) throw mergedError(this.#context.path, this.#merged.names);
    const { bias } = this.base_layer;
    if (!(this.base_layer instanceof Conv1D)) return linear(x, weight, bias);
    return add(matmul(x, weight), bias!);
  }

  merge(name: string, exact: boolean): void {
    this.#merged.add(name, () => this.#update(name), exact);
  }
  unmerge(name: string): void {
    this.#merged.remove(name, () => this.#update(name));
  }
  nonFinite(name: string, earlier: readonly string[]): Promise<NonFinite | null> {
    const names = [...earlier.filter((other) => this.has(other)), name];
    return this.#merged.nonFinite(names.map((each) => () => this.#update(each)));
  }

  /** s·B·A as the weight stores it. */
  #update(name: string): Tensor {
    const { A, B, scale } = this.#parts.get(name)!;
    const update = mul(matmul(B, A), scale);
    return this.base_layer instanceof Conv1D ? transpose(update) : update;
  }
}
