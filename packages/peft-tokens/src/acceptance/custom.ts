import { AutoModelForCausalLM, CausalLM, type TokenHead } from "@neolog/models";
import { Embedding, Linear, Module } from "@neolog/nn";
import { type Tensor, cat, mul, randn, reshape } from "@neolog/tensor";
import { configOf } from "../testing.ts";

export const table = (rows: number, width: number): Embedding => new Embedding(randn([rows, width], rows + width));

/** Two embeddings of different width, the second scaled, and a head over both. */
export class TwoTables extends CausalLM {
  readonly emb = table(9, 4);
  readonly pos_emb = table(7, 3);
  readonly lm_head = new Linear(randn([9, 7], 5));
  readonly #scale: number;

  constructor(scale: number) {
    super({ model_type: "llama", vocab_size: 9, hidden_size: 4 });
    this.#scale = scale;
  }
  get embeddingPath(): string {
    return "emb";
  }
  get headPath(): string {
    return "lm_head";
  }
  get tiedPaths(): readonly string[] {
    return [];
  }
  protected hiddenStates({ ids }: { ids: { values: Int32Array; rows: number; columns: number } }): Tensor[] {
    const wide = this.emb.forward(ids.values);
    const narrow = mul(this.pos_emb.forward(ids.values), this.#scale);
    return [reshape(cat([wide, narrow], 1), [ids.rows, ids.columns, 7])];
  }
  protected get head(): TokenHead {
    return this.lm_head;
  }
}

/** Two tied models side by side. */
export class Pair extends Module {
  readonly left = AutoModelForCausalLM.fromConfig(configOf("llama tied"), { seed: 1, std: 0.5 });
  readonly right = AutoModelForCausalLM.fromConfig(configOf("llama tied"), { seed: 2, std: 0.5 });

  forward(input_ids: number[][]): { left: Tensor; right: Tensor } {
    return { left: this.left.forward({ input_ids }).logits, right: this.right.forward({ input_ids }).logits };
  }
}
