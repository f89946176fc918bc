export { type AutoPeftOptions, autoPeftModel } from "./auto.ts";
export {
  PEFT_VERSION,
  TASK_TYPES,
  TrainableTokensConfig,
  type TaskType,
  type TrainableTokensOptions,
} from "./config.ts";
export * from "./errors.ts";
export type { LoadOptions, LoadReport } from "./files.ts";
export { type AdapterState, TrainableTokensLayer } from "./layer.ts";
export {
  type AddAdapterOptions,
  type MergeAndUnloadOptions,
  type MergeOptions,
  PeftModel,
  type PeftOptions,
  getPeftModel,
  tokenParameters,
} from "./model.ts";
export type { SaveOptions } from "./save.ts";
export {
  getBaseModelStateDict,
  getPeftModelStateDict,
  setBaseModelStateDict,
  setPeftModelStateDict,
} from "./stateDict.ts";
export type { LayerStatus, ModelStatus } from "./status.ts";
export type { AdaptableModel } from "./targets.ts";
export * from "./warnings.ts";
