import type { Backend } from "../../backend.ts";
import { attention } from "./fused/attention.ts";
import { crossEntropy } from "./fused/crossEntropy.ts";
import { layerNorm, rmsNorm } from "./fused/norm.ts";
import { rope } from "./fused/rope.ts";
import { logSoftmax, softmax } from "./fused/softmax.ts";

/** The one-pass kernels of the cpu backend. */
export const fused: NonNullable<Backend["fused"]> = {
  softmax,
  logSoftmax,
  layerNorm,
  rmsNorm,
  rope,
  attention,
  crossEntropy,
};
