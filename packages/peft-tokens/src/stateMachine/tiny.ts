import { CausalLM, type TokenEmbedding, type TokenHead } from "@neolog/models";
import { Embedding, Linear, TiedHead } from "@neolog/nn";
import { type Tensor, add, mul, persist, randn, reshape } from "@neolog/tensor";
import { HIDDEN, LINEARS, VOCAB } from "./dense.ts";

interface Ids {
  readonly values: Int32Array;
  readonly rows: number;
  readonly columns: number;
}

/** Two tables, a square and a head: all that an adapter of rows can tell apart, in six operations. */
export class Tiny extends CausalLM {
  embed_tokens: TokenEmbedding = table(1);
  second: TokenEmbedding = table(2);
  lm_head: TokenHead;

  constructor(tied: boolean) {
    super({ model_type: "llama", vocab_size: VOCAB, hidden_size: HIDDEN, tie_word_embeddings: tied });
    this.lm_head = tied ? new TiedHead(() => this.embed_tokens) : new Linear(weights(3));
  }
  get embeddingPath(): string {
    return "embed_tokens";
  }
  get headPath(): string {
    return "lm_head";
  }
  get tiedPaths(): readonly string[] {
    return this.config["tie_word_embeddings"] === true ? [this.headPath] : [];
  }
  protected hiddenStates({ ids }: { ids: Ids }): readonly Tensor[] {
    const x = this.embed_tokens.forward(ids.values);
    const y = add(mul(x, x), this.second.forward(ids.values));
    return [reshape(this.between(y), [ids.rows, ids.columns, HIDDEN])];
  }
  protected between(x: Tensor): Tensor {
    return x;
  }
  protected get head(): TokenHead {
    return this.lm_head;
  }
}

/** Two weights more, not square, for LoRA to adapt. */
export class TinyMlp extends Tiny {
  readonly up_proj = new Linear(persist(randn(LINEARS.up_proj, 4)));
  readonly down_proj = new Linear(persist(randn(LINEARS.down_proj, 5)));

  protected override between(x: Tensor): Tensor {
    return add(x, this.down_proj.forward(this.up_proj.forward(x)));
  }
}

const weights = (seed: number): Tensor => persist(randn([VOCAB, HIDDEN], seed));
const table = (seed: number): Embedding => new Embedding(weights(seed));
