import type { MaybeLinearHead, Module } from "@neolog/nn";
import type { DType, Tensor } from "@neolog/tensor";

/** What a model asks of a module that looks tokens up; adapters that wrap one answer the same. */
export interface TokenLookup extends Module {
  /** ids [n] → [n, hidden] */
  forward(ids: Int32Array): Tensor;
}

/** What a model asks of its input embedding. */
export interface TokenEmbedding extends TokenLookup, MaybeLinearHead {
  /** hidden [..., hidden] → logits [..., vocab], for a tied head. */
  unembed(x: Tensor): Tensor;
}

/** What a model asks of its output head. */
export interface TokenHead extends Module, MaybeLinearHead {
  /** hidden [..., hidden] → logits [..., vocab] */
  forward(x: Tensor): Tensor;
}

/** The dtype that an embedding's table is stored in, below any adapters. */
export function tableDType(embedding: TokenEmbedding): DType {
  let layer: object = embedding;
  while ("base_layer" in layer) layer = layer.base_layer as object;
  return (layer as { weight: Tensor }).weight.dtype;
}
