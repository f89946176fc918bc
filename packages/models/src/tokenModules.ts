import type { Module } from "@neolog/nn";
import type { Tensor } from "@neolog/tensor";

/** What a model asks of its input embedding; adapters that wrap one answer the same. */
export interface TokenEmbedding extends Module {
  /** ids [n] → [n, hidden] */
  forward(ids: Int32Array): Tensor;
  /** hidden [..., hidden] → logits [..., vocab], for a tied head. */
  unembed(x: Tensor): Tensor;
}

/** What a model asks of its output head. */
export interface TokenHead extends Module {
  /** hidden [..., hidden] → logits [..., vocab] */
  forward(x: Tensor): Tensor;
}
