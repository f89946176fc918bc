import { type Tensor, linear as affine } from "@neolog/tensor";
import { Module } from "./module.ts";
import { blank } from "./init.ts";
import type { LinearHead } from "./linearHead.ts";

/** y = x·Wᵀ + b; weight [out, in], bias [out] or null. */
export class Linear extends Module {
  weight: Tensor;
  bias: Tensor | null;

  constructor(weight: Tensor, bias: Tensor | null = null) {
    super();
    this.weight = weight;
    this.bias = bias;
  }
  get in_features(): number {
    return this.weight.shape[1]!;
  }
  get out_features(): number {
    return this.weight.shape[0]!;
  }
  /** The same with copies of its tensors. */
  copy(copied: (t: Tensor) => Tensor): Linear {
    return new Linear(copied(this.weight), this.bias && copied(this.bias));
  }
  /** x [..., in] → [..., out] */
  forward(x: Tensor): Tensor {
    return affine(x, this.weight, this.bias);
  }
  linearHead(): LinearHead {
    return { weight: this.weight, bias: this.bias, override: null };
  }
}

/** A Linear whose values are still to be loaded. */
export const linear = (inFeatures: number, outFeatures: number, bias = false): Linear =>
  new Linear(blank([outFeatures, inFeatures]), bias ? blank([outFeatures]) : null);
