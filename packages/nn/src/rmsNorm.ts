import { type Tensor, rmsNorm as normalize } from "@neolog/tensor";
import { blank } from "./init.ts";
import { Module } from "./module.ts";

/** Zhang & Sennrich 2019, https://arxiv.org/abs/1910.07467; weight [n]. */
export class RmsNorm extends Module {
  weight: Tensor;
  readonly #eps: number;

  constructor(weight: Tensor, eps: number) {
    super();
    this.weight = weight;
    this.#eps = eps;
  }
  /** x [..., n] → [..., n] */
  forward(x: Tensor): Tensor {
    return normalize(x, this.weight, this.#eps);
  }
}

export const rmsNorm = (size: number, eps: number): RmsNorm => new RmsNorm(blank([size]), eps);
