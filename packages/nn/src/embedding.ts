import { IndexError, type Tensor, add, detach, matmulT, overriddenRows, overrideRows, takeRows } from "@neolog/tensor";
import { Module } from "./module.ts";
import { blank } from "./init.ts";
import type { LinearHead, MaybeLinearHead } from "./linearHead.ts";

/** A table of token vectors, weight [vocab, hidden]; `unembed` is the head tied to it. */
export class Embedding extends Module {
  weight: Tensor;
  #paddingIdx: number | null;

  constructor(weight: Tensor, paddingIdx: number | null = null) {
    super();
    this.weight = weight;
    this.#paddingIdx = paddingIdx;
  }
  get num_embeddings(): number {
    return this.weight.shape[0]!;
  }
  get embedding_dim(): number {
    return this.weight.shape[1]!;
  }
  /** The id whose lookups give no gradient, or null. */
  get padding_idx(): number | null {
    return this.#paddingIdx;
  }
  set padding_idx(id: number | null) {
    this.#paddingIdx = id;
  }

  /** The same with copies of its tensors. */
  copy(copied: (t: Tensor) => Tensor): Embedding {
    return new Embedding(copied(this.weight), this.#paddingIdx);
  }
  /** ids [n] → [n, hidden]. Throws IndexError for an id outside the table. */
  forward(ids: Int32Array): Tensor {
    this.#check(ids);
    const x = takeRows(this.weight, ids);
    return this.weight.tracked ? this.withoutPaddingGradient(ids, x) : x;
  }
  /** The same with rows[slots[i]] in the place of row i wherever slots[i] ≥ 0; `withoutPaddingGradient` is left to the caller. rows [k, hidden] */
  forwardOverridden(ids: Int32Array, rows: Tensor, slots: Int32Array): Tensor {
    this.#check(ids);
    return overriddenRows(this.weight, ids, rows, slots);
  }
  #check(ids: Int32Array): void {
    const outside = ids.find((id) => id < 0 || id >= this.num_embeddings);
    if (outside !== undefined) {
      throw new IndexError("Embedding", `token ids must be in [0, ${this.num_embeddings})`, outside);
    }
  }

  /** hidden [..., hidden] → logits [..., vocab] */
  unembed(x: Tensor): Tensor {
    return matmulT(x, this.weight);
  }
  /** Of `unembed`. */
  linearHead(): LinearHead {
    return { weight: this.weight, bias: null, override: null };
  }

  /** x [n, hidden] with the gradient stopped at positions whose id is `padding_idx`. */
  withoutPaddingGradient(ids: Int32Array, x: Tensor): Tensor {
    const padding = this.#paddingIdx;
    if (padding === null || !ids.includes(padding)) return x;
    return overrideRows(
      x,
      detach(x),
      ids.map((id, i) => (id === padding ? i : -1)),
    );
  }
}

/** An Embedding whose values are still to be loaded. */
export const embedding = (vocabSize: number, hiddenSize: number, paddingIdx: number | null = null): Embedding =>
  new Embedding(blank([vocabSize, hiddenSize]), paddingIdx);

/** A lookup without a table of its own: in the embedding that `find` gives, adapted or not. */
export class TiedEmbedding extends Module {
  readonly #find: () => { forward(ids: Int32Array): Tensor };

  constructor(find: () => { forward(ids: Int32Array): Tensor }) {
    super();
    this.#find = find;
  }
  /** ids [n] → [n, hidden] */
  forward(ids: Int32Array): Tensor {
    return this.#find().forward(ids);
  }
}

/** What a tied head asks of the embedding. */
interface Unembeds extends MaybeLinearHead {
  unembed(x: Tensor): Tensor;
}

/** A head without parameters of its own: logits through the embedding that `find` gives, adapted or not. */
export class TiedHead extends Module {
  readonly #find: () => Unembeds;
  readonly #owner: { bias: Tensor } | null;

  /** `owner` is the module that has the head's bias, where there is one. */
  constructor(find: () => Unembeds, owner: { bias: Tensor } | null = null) {
    super();
    this.#find = find;
    this.#owner = owner;
  }
  get bias(): Tensor | null {
    return this.#owner?.bias ?? null;
  }
  /** x [..., hidden] → [..., vocab] */
  forward(x: Tensor): Tensor {
    const logits = this.#find().unembed(x);
    return this.bias ? add(logits, this.bias) : logits;
  }
  linearHead(): LinearHead | null {
    const head = this.#find().linearHead?.() ?? null;
    return head && { ...head, bias: this.bias };
  }
}
