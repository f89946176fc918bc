import { type Tensor, layerNorm as normalize, ones, zeros } from "@neolog/tensor";
import { blank } from "./init.ts";
import { Module } from "./module.ts";

/** Ba et al. 2016, https://arxiv.org/abs/1607.06450; weight and bias [n], or null for 1 and 0. */
export class LayerNorm extends Module {
  weight: Tensor | null;
  bias: Tensor | null;
  readonly #eps: number;

  constructor(weight: Tensor | null, bias: Tensor | null, eps: number) {
    super();
    this.weight = weight;
    this.bias = bias;
    this.#eps = eps;
  }
  /** The same with copies of its tensors. */
  copy(copied: (t: Tensor) => Tensor): LayerNorm {
    return new LayerNorm(this.weight && copied(this.weight), this.bias && copied(this.bias), this.#eps);
  }
  /** x [..., n] → [..., n] */
  forward(x: Tensor): Tensor {
    const n = [x.shape.at(-1)!];
    const weight = this.weight ?? ones(n, x.dtype, x.backend);
    return normalize(x, weight, this.bias ?? zeros(n, x.dtype, x.backend), this.#eps);
  }
}

/** A LayerNorm whose values, if it has any, are still to be loaded. */
export const layerNorm = (size: number, eps: number, affine = true): LayerNorm =>
  affine ? new LayerNorm(blank([size]), blank([size]), eps) : new LayerNorm(null, null, eps);
