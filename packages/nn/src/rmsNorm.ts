import { type Tensor, add, rmsNorm as normalize } from "@neolog/tensor";
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
  /** The same with copies of its tensors. */
  copy(copied: (t: Tensor) => Tensor): RmsNorm {
    return new RmsNorm(copied(this.weight), this.#eps);
  }
  /** x [..., n] → [..., n] */
  forward(x: Tensor): Tensor {
    return normalize(x, this.weight, this.#eps);
  }
}

export const rmsNorm = (size: number, eps: number): RmsNorm => new RmsNorm(blank([size]), eps);

/** Gemma's: the weight [n] is stored as its distance from 1. */
export class GemmaRmsNorm extends Module {
  weight: Tensor;
  readonly #eps: number;

  constructor(weight: Tensor, eps: number) {
    super();
    this.weight = weight;
    this.#eps = eps;
  }
  override initialValue(): number {
    return 0;
  }
  /** The same with copies of its tensors. */
  copy(copied: (t: Tensor) => Tensor): GemmaRmsNorm {
    return new GemmaRmsNorm(copied(this.weight), this.#eps);
  }
  /** x [..., n] → [..., n] */
  forward(x: Tensor): Tensor {
    return normalize(x, add(this.weight, 1), this.#eps);
  }
}

export const gemmaRmsNorm = (size: number, eps: number): GemmaRmsNorm => new GemmaRmsNorm(blank([size]), eps);
