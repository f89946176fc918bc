export { type AutoPeftOptions, autoPeftModel } from "./auto.ts";
export {
  PEFT_VERSION,
  TASK_TYPES,
  TrainableTokensConfig,
  type TaskType,
  type TrainableTokensOptions,
} from "./config.ts";
export type { CombinationType } from "./combine.ts";
export type { HotswapOptions } from "./hotswap.ts";
export type { EditOptions, ExtendOptions, RowFollower } from "./editTokens.ts";
export type { OverlapPolicy, Sides } from "./effective.ts";
export * from "./errors.ts";
export type { InitPolicy } from "./init.ts";
export type { AdaptableModel } from "./adaptable.ts";
export type { SetAdapterOptions } from "./adapters.ts";
export { castAdapterDtype, deleteAdapter, injectAdapterInModel, setAdapter, setRequiresGrad } from "./inject.ts";
export { type IsolationOptions, type IsolationRow, checkIsolation } from "./isolation.ts";
export { type ReuseEstimate, type ReuseOptions, type ReuseReport, ReusedLoss } from "./reuse/reusedLoss.ts";
export { TrainableTokensLayer } from "./layer.ts";
export type { LoadOptions } from "./load.ts";
export type { LoadReport } from "./loadChecks.ts";
export { LoraConfig, type LoraOptions, type TokenIndices } from "./lora/config.ts";
export { LoraEmbedding } from "./lora/embedding.ts";
export { LoraLayer } from "./lora/layer.ts";
export { ModulesToSaveWrapper } from "./lora/modulesToSave.ts";
export type { MergeAndUnloadOptions, MergeOptions } from "./merge.ts";
export {
  type AnyPeftModel,
  PeftModel,
  type PeftOptions,
  getPeftModel,
  loraParameters,
  tokenParameters,
} from "./model.ts";
export type { CallOptions, SampleAdapters } from "./mixedBatch.ts";
export { type AddAdapterOptions, type PeftConfig, tokensOf } from "./registry.ts";
export { type TouchingBatch, originalRows, touchedRows } from "./rowOptimizer.ts";
export type { SaveOptions } from "./save.ts";
export {
  getBaseModelStateDict,
  getPeftModelStateDict,
  setBaseModelStateDict,
  setPeftModelStateDict,
} from "./stateDict.ts";
export type { LayerStatus, ModelStatus } from "./status.ts";
export { type RestoreOptions, type TrainingState, loadTrainingState } from "./trainingState.ts";
export { addTokens, trimVocabulary } from "./vocabulary.ts";
export * from "./warnings.ts";
