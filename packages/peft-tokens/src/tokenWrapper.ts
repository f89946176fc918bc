import { type LinearHead, Module } from "@neolog/nn";
import type { Tensor } from "@neolog/tensor";
import type { TrainableTokensLayer } from "./layer.ts";

/** Token rows beside LoRA: PEFT keeps their layer one level down, as `token_adapter`. */
export class TrainableTokensWrapper extends Module {
  readonly token_adapter: TrainableTokensLayer;

  constructor(layer: TrainableTokensLayer) {
    super();
    this.token_adapter = layer;
  }
  get base_layer(): TrainableTokensLayer["base_layer"] {
    return this.token_adapter.base_layer;
  }
  /** As the layer. */
  forward(input: Int32Array): Tensor;
  forward(input: Tensor): Tensor;
  forward(input: Int32Array | Tensor): Tensor {
    return this.token_adapter.forward(input as Tensor);
  }
  unembed(x: Tensor): Tensor {
    return this.token_adapter.unembed(x);
  }
  linearHead(): LinearHead | null {
    return this.token_adapter.linearHead();
  }
  get in_features(): number {
    return this.token_adapter.in_features;
  }
  get out_features(): number {
    return this.token_adapter.out_features;
  }
  get num_embeddings(): number {
    return this.token_adapter.num_embeddings;
  }
  get embedding_dim(): number {
    return this.token_adapter.embedding_dim;
  }
  get padding_idx(): number | null {
    return this.token_adapter.padding_idx;
  }
  get weight(): Tensor {
    return this.token_adapter.weight;
  }
}
