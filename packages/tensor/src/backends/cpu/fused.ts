import type { Backend } from "../../backend.ts";
import { attention } from "./fused/attention.ts";
import { attentionGrad } from "./fused/attentionGrad.ts";
import { crossEntropy, crossEntropyGrad } from "./fused/crossEntropy.ts";
import { layerNorm, layerNormGrad, rmsNorm, rmsNormGrad } from "./fused/norm.ts";
import { rope } from "./fused/rope.ts";
import { logSoftmax, logSoftmaxGrad, softmax, softmaxGrad } from "./fused/softmax.ts";

/** The one-pass kernels of the cpu backend. */
export const fused: NonNullable<Backend["fused"]> = {
  softmax,
  softmaxGrad,
  logSoftmax,
  logSoftmaxGrad,
  layerNorm,
  layerNormGrad,
  rmsNorm,
  rmsNormGrad,
  rope,
  attention,
  attentionGrad,
  crossEntropy,
  crossEntropyGrad,
};
