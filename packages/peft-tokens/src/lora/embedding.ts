import type { Embedding, LinearHead } from "@neolog/nn";
import { type Backend, type Tensor, matmul, matmulT, mul, takeRows, transpose } from "@neolog/tensor";
import { AdapterLayer, type NonFinite } from "../adapterLayer.ts";
import type { Parts } from "../effective.ts";
import { type LoraContext, type LoraPart, added, mergedError } from "./layer.ts";
import { MergedWeight } from "./mergedWeight.ts";

/** LoRA on a table of token vectors: y = base(ids) + Σ s·(Aᵀ[ids]·Bᵀ), A [r, vocab], B [hidden, r]. A tied head is left alone. */
export class LoraEmbedding extends AdapterLayer {
  readonly base_layer: Embedding;
  readonly lora_embedding_A: Record<string, Tensor> = {};
  readonly lora_embedding_B: Record<string, Tensor> = {};
  readonly #parts = new Map<string, LoraPart>();
  readonly #context: LoraContext;
  readonly #merged: MergedWeight;

  constructor(base: Embedding, context: LoraContext) {
    super();
    this.base_layer = base;
    this.#context = context;
    this.#merged = new MergedWeight(context.weight);
  }

  get base(): Embedding {
    return this.base_layer;
  }
  get moduleType(): string {
    return "lora.Embedding";
  }
  get backend(): Backend {
    return this.#context.weight().backend;
  }
  get adapters(): string[] {
    return [...this.#parts.keys()];
  }
  get num_embeddings(): number {
    return this.base_layer.num_embeddings;
  }
  get embedding_dim(): number {
    return this.base_layer.embedding_dim;
  }
  get padding_idx(): number | null {
    return this.base_layer.padding_idx;
  }
  override get parts(): Parts {
    return this.#parts;
  }
  tensorsOf(name: string): ReadonlyMap<string, Tensor> {
    const part = this.#parts.get(name);
    return new Map(
      part
        ? [
            ["lora_embedding_A", part.A],
            ["lora_embedding_B", part.B],
          ]
        : [],
    );
  }

  add(name: string, part: LoraPart): void {
    this.#parts.set(name, part);
    this.lora_embedding_A[name] = part.A;
    this.lora_embedding_B[name] = part.B;
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
    delete this.lora_embedding_A[name];
    delete this.lora_embedding_B[name];
  }

  rename(from: string, to: string): void {
    const part = this.#parts.get(from)!;
    this.remove(to);
    this.add(to, part);
    this.#parts.delete(from);
    delete this.lora_embedding_A[from];
    delete this.lora_embedding_B[from];
  }

  /** ids [n] → [n, hidden] */
  forward(ids: Int32Array): Tensor {
    let y = this.#lookup(ids);
    const { state } = this.#context;
    for (const [name, { A, B, scale }] of state.appliedParts(this.#parts)) {
      const rows = this.base_layer.withoutPaddingGradient(ids, takeRows(transpose(A), ids)); // [n, r]
      y = added(y, mul(matmulT(rows, B), scale), state.samplesOf(name));
    }
    return y;
  }
  #lookup(ids: Int32Array): Tensor {
    if (this.#context.state.enabled || this.#merged.names.length === 0) return this.base_layer.forward(ids);
    return takeRows(this.#unmerged(), ids);
  }
  /** hidden [..., hidden] → logits [..., vocab], through a tied head, on which LoRA has no effect. */
  unembed(x: Tensor): Tensor {
    if (this.#context.state.enabled || this.#merged.names.length === 0) return this.base_layer.unembed(x);
    return matmulT(x, this.#unmerged());
  }
  /** Of `unembed`. */
  linearHead(): LinearHead {
    const plain = this.#context.state.enabled || this.#merged.names.length === 0;
    return plain ? this.base_layer.linearHead() : { weight: this.#unmerged(), bias: null, override: null };
  }
  #unmerged(): Tensor {
    const { unmerged, names } = this.#merged;
    if (!unmerged) throw mergedError(this.#context.path, names);
    return unmerged;
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

  /** s·(B·A)ᵀ [vocab, hidden] */
  #update(name: string): Tensor {
    const { A, B, scale } = this.#parts.get(name)!;
    return mul(transpose(matmul(B, A)), scale);
  }
}
