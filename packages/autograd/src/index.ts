export { GradientError, backward, noGrad } from "./backward.ts";
export { checkpoint, checkpointUnless } from "./checkpoint.ts";
export { type GradcheckOptions, gradcheck } from "./gradcheck.ts";
export { lean } from "./lean.ts";
export { AdamW, type AdamWOptions, type AdamWSettings } from "./optim/adamw.ts";
export { clipGradNorm } from "./optim/clip.ts";
export {
  Optimizer,
  OptimizerError,
  type OptimizerOptions,
  type ParameterGroup,
  type Update,
} from "./optim/optimizer.ts";
export type { TouchedRows } from "./optim/rows.ts";
export { prepareStep } from "./optim/prepare.ts";
export * from "./optim/schedule.ts";
export { SGD, type SgdOptions, type SgdSettings } from "./optim/sgd.ts";
export { VJP } from "./vjp/index.ts";
export type { Saved, Vjp } from "./vjp/rule.ts";
export { SAVED, savedBy } from "./vjp/saved.ts";
