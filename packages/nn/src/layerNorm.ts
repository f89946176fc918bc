import { type Tensor, layerNorm as normalize } from "@neolog/tensor";
import { blank } from "./init.ts";
import { Module } from "./module.ts";

/** Ba et al. 2016, https://arxiv.org/abs/1607.06450; weight, bias [n]. */
export class LayerNorm extends Module {
  weight: Tensor;
  bias: Tensor;
  readonly #eps: number;

  constructor(weight: Tensor, bias: Tensor, eps: number) {
    super();
    this.weight = weight;
    this.bias = bias;
    this.#eps = eps;
  }
  /** x [..., n] → [..., n] */
  forward(x: Tensor): Tensor {
    return normalize(x, this.weight, this.bias, this.#eps);
  }
}

export const layerNorm = (size: number, eps: number): LayerNorm => new LayerNorm(blank([size]), blank([size]), eps);
