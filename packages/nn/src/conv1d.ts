import { type Tensor, add, matmul } from "@neolog/tensor";
import { Module } from "./module.ts";
import { blank } from "./init.ts";

/** GPT-2's linear layer: y = x·W + b with weight [in, out], used as stored. */
export class Conv1D extends Module {
  weight: Tensor;
  bias: Tensor;

  constructor(weight: Tensor, bias: Tensor) {
    super();
    this.weight = weight;
    this.bias = bias;
  }
  /** The same with copies of its tensors. */
  copy(copied: (t: Tensor) => Tensor): Conv1D {
    return new Conv1D(copied(this.weight), copied(this.bias));
  }
  /** x [..., in] → [..., out] */
  forward(x: Tensor): Tensor {
    return add(matmul(x, this.weight), this.bias);
  }
}

/** A Conv1D whose values are still to be loaded. */
export const conv1d = (inFeatures: number, outFeatures: number): Conv1D =>
  new Conv1D(blank([inFeatures, outFeatures]), blank([outFeatures]));
