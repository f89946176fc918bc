import { backward } from "@neolog/autograd";
import type { FolderSource, FolderTarget } from "@neolog/checkpoint";
import type { CausalLM, GenerateOptions, Generator } from "@neolog/models";
import { Module } from "@neolog/nn";
import { Random, ShapeError, type Tensor } from "@neolog/tensor";
import type { AdaptableModel } from "./adaptable.ts";
import { Adapters, type SetAdapterOptions } from "./adapters.ts";
import { type CombinationType, addWeightedAdapter, combineAdapters } from "./combine.ts";
import type { OverlapPolicy } from "./effective.ts";
import { type EditOptions, type ExtendOptions, extendAdapter, remapTokens, removeTokens } from "./editTokens.ts";
import { AdapterError, ConfigError } from "./errors.ts";
import {
  applyRequiresGrad,
  checkTrains,
  disabled,
  rememberFlags,
  setEnabled,
  setRequiresGradOf,
  whileDisabled,
} from "./flags.ts";
import { generateWith } from "./generation.ts";
import { type HotswapOptions, hotswapAdapter } from "./hotswap.ts";
import type { TrainableTokensLayer } from "./layer.ts";
import { type LoadOptions, loadAdapterFiles } from "./load.ts";
import type { LoadReport } from "./loadChecks.ts";
import { type MergeAndUnloadOptions, type MergeOptions, mergeAdapters, mergeAndRemove, unmerge } from "./merge.ts";
import { type CallOptions, batchOf, mixedCall } from "./mixedBatch.ts";
import type { AddAdapterOptions, PeftConfig } from "./registry.ts";
import { type SaveOptions, saveAdapters } from "./save.ts";
import { type LayerStatus, type ModelStatus, layerStatus, modelStatus } from "./status.ts";
import { type OnWarning, toConsole } from "./warnings.ts";

export interface PeftOptions extends AddAdapterOptions {
  /** "default" where absent. */
  readonly adapterName?: string;
  /** Told of warnings; the console where absent. */
  readonly onWarning?: OnWarning;
}

/** A PeftModel over any base. */
export type AnyPeftModel = PeftModel<AdaptableModel>;

/** What a model's forward takes. */
type Inputs<M extends AdaptableModel> = Parameters<M["forward"]>[0];

/** Puts the base one level down, where PEFT's keys have it: base_model.model.… */
class BaseHolder<M extends AdaptableModel> extends Module {
  readonly model: M;
  constructor(model: M) {
    super();
    this.model = model;
  }
  forward(inputs: Inputs<M>): ReturnType<M["forward"]> {
    const run: (inputs: never) => unknown = (given) => this.model.forward(given);
    return run(inputs) as ReturnType<M["forward"]>;
  }
}

function lossIn(output: unknown): Tensor {
  const { loss } = output as { readonly loss?: Tensor | null };
  if (!loss) throw new ShapeError("loss", "the base must give a loss, got none; pass labels");
  return loss;
}

/** A base model with adapters that can be set, disabled, merged, unloaded, saved. */
export class PeftModel<M extends AdaptableModel = CausalLM> extends Module {
  readonly base_model: BaseHolder<M>;
  readonly #adapters: Adapters;

  constructor(model: M, onWarning: OnWarning = toConsole) {
    super();
    this.#adapters = new Adapters(model, onWarning);
    this.base_model = new BaseHolder(model);
    for (const p of model.parameters()) p.requiresGrad = false;
  }

  /** Loads an adapter folder onto a model and activates it; frozen and in eval mode unless `isTrainable`. */
  static async fromPretrained<M extends AdaptableModel>(
    model: M,
    source: FolderSource,
    {
      adapterName = "default",
      onWarning = toConsole,
      ...options
    }: LoadOptions & { adapterName?: string; onWarning?: OnWarning } = {},
  ): Promise<PeftModel<M>> {
    checkUnmixed("PeftModel.fromPretrained", options);
    const restore = rememberFlags(model);
    try {
      const peft = new PeftModel(model, onWarning);
      await peft.loadAdapter(source, adapterName, options);
      const { state } = peft.#adapters;
      state.active = [adapterName];
      state.training = options.isTrainable ?? false;
      applyRequiresGrad(peft.#adapters);
      return peft;
    } catch (error) {
      restore();
      throw error;
    }
  }

  getBaseModel(): M {
    return this.base_model.model;
  }
  /** What the model is made of, for functions that work on any module tree. */
  get adapters(): Adapters {
    return this.#adapters;
  }
  /** Adapter name → config. */
  get peftConfig(): Record<string, PeftConfig> {
    return Object.fromEntries([...this.#adapters.entries].map(([name, { config }]) => [name, config]));
  }
  /** In the order they were set. */
  get activeAdapters(): readonly string[] {
    return this.#adapters.state.active;
  }
  get activeAdapter(): string | undefined {
    return this.#adapters.state.active[0];
  }
  /** In the order they were merged. */
  get mergedAdapters(): readonly string[] {
    return this.#adapters.state.merged;
  }
  get enabled(): boolean {
    return this.#adapters.state.enabled;
  }
  /** Dropout is active. */
  get training(): boolean {
    return this.#adapters.state.training;
  }
  /** Where the masks of dropout come from; save it to go on with the same. */
  get dropoutState(): { readonly seed: number; readonly counter: number } {
    const { seed, counter } = this.#adapters.state.dropout;
    return { seed, counter };
  }
  set dropoutState({ seed, counter }: { readonly seed: number; readonly counter: number }) {
    this.#adapters.state.dropout = new Random(seed, counter);
  }
  train(mode = true): this {
    this.#adapters.state.training = mode;
    return this;
  }
  eval(): this {
    return this.train(false);
  }

  /** As the base's; `adapterNames` gives each sample of the batch adapters of its own, whatever is active. */
  forward(inputs: Inputs<M>, { adapterNames }: CallOptions = {}): ReturnType<M["forward"]> {
    const run = (): ReturnType<M["forward"]> => this.base_model.forward(inputs);
    if (!adapterNames) return run();
    return this.#adapters.state.during(mixedCall(this.#adapters, adapterNames, batchOf(inputs)), run);
  }
  /** The loss of `forward`, from the base's own `loss` where it has one. Throws ShapeError without labels. */
  loss(inputs: Inputs<M>, { adapterNames }: CallOptions = {}): Tensor {
    const base: { loss?(inputs: Inputs<M>): Tensor } = this.getBaseModel() as object;
    const run = (): Tensor => (base.loss ? base.loss(inputs) : lossIn(this.base_model.forward(inputs)));
    if (!adapterNames) return run();
    return this.#adapters.state.during(mixedCall(this.#adapters, adapterNames, batchOf(inputs)), run);
  }
  /**
   * As the base's, with `adapterNames` as in `forward`; a run keeps the rows that it began with. Throws ConfigError UNSUPPORTED
   * where the base cannot generate.
   */
  generate(options: GenerateOptions & CallOptions): Promise<number[][]> {
    const base = this.getBaseModel() as { readonly decoding?: unknown };
    if (typeof base.decoding !== "function") {
      const name = base.constructor.name;
      throw new ConfigError("UNSUPPORTED", `generate: the base must be able to generate, got ${name}`, { base: name });
    }
    return generateWith(this.#adapters, base as unknown as Generator, options);
  }
  /** autograd's backward. Throws AdapterError NOTHING_TO_TRAIN where no adapter is trainable, in effect and unmerged. */
  backward(loss: Tensor): void {
    if (!loss.tracked) checkTrains(this.#adapters);
    backward(loss);
  }

  /** Wraps what the config targets and adds its part, neither active nor trainable. On failure nothing has changed. */
  addAdapter(name: string, config: PeftConfig, options: AddAdapterOptions = {}): void {
    this.#adapters.add(name, config, options);
  }
  /** Exactly these become active and train (unless `inferenceMode`); all others are frozen. Merged ones are unmerged first. */
  setAdapter(names: string | readonly string[], options: SetAdapterOptions = {}): void {
    this.#adapters.set([names].flat(), options);
  }
  /** Forgets an adapter; see Adapters.delete. */
  deleteAdapter(name: string): void {
    this.#adapters.delete(name);
  }
  /** Lets an adapter train further tokens; see editTokens.ts for this and the next two. */
  extendAdapter(name: string, ids: readonly number[], options: ExtendOptions = {}): void {
    extendAdapter(this.#adapters, name, ids, options);
  }
  /** Makes an adapter forget tokens. */
  removeTokens(name: string, ids: readonly number[], options: EditOptions = {}): void {
    removeTokens(this.#adapters, name, ids, options);
  }
  /** Gives an adapter's rows to other tokens: old id → new id. */
  remapTokens(name: string, mapping: ReadonlyMap<number, number>, options: EditOptions = {}): void {
    remapTokens(this.#adapters, name, mapping, options);
  }
  /** A new, inactive adapter: the weighted sum of others; see combine.ts for this and the next. */
  addWeightedAdapter(
    names: readonly string[],
    weights: readonly number[],
    newName: string,
    options: { readonly combinationType?: CombinationType } = {},
  ): Promise<void> {
    return addWeightedAdapter(this.#adapters, names, weights, newName, options);
  }
  /** A new, inactive adapter with the tokens of several. */
  combineAdapters(
    names: readonly string[],
    newName: string,
    options: { readonly overlap?: OverlapPolicy | "mean" } = {},
  ): Promise<void> {
    return combineAdapters(this.#adapters, names, newName, options);
  }
  /** Puts an adapter folder in the place of an adapter, also while it generates; see hotswap.ts. */
  hotswapAdapter(source: FolderSource, name: string, options: HotswapOptions = {}): Promise<LoadReport> {
    return hotswapAdapter(this.#adapters, source, name, options);
  }
  /** Sets the stored flags; activation stays. */
  setRequiresGrad(names: string | readonly string[], flag = true): void {
    setRequiresGradOf(this.#adapters, names, flag);
  }

  /** Until the result is disposed the model is the base; then it is enabled or disabled as before. Nests. */
  disableAdapter(): Disposable {
    return disabled(this.#adapters);
  }
  /** Runs `f` on the base model; where it returns a promise, until that settles. */
  withAdapterDisabled<T>(f: () => T): T {
    return whileDisabled(this.#adapters, f);
  }
  disableAdapterLayers(): void {
    setEnabled(this.#adapters, false);
  }
  enableAdapterLayers(): void {
    setEnabled(this.#adapters, true);
  }

  /** Writes adapters into the base, in place, and remembers them; see mergeAdapters. */
  mergeAdapter(options: MergeOptions = {}): Promise<void> {
    return mergeAdapters(this.#adapters, options);
  }
  /** Puts the base back, last merged first. */
  unmergeAdapter(): void {
    unmerge(this.#adapters);
  }
  /**
   * Merges the listed (default: active) adapters, beside those that are merged, and takes the wrappers away. Returns the same base
   * object, still frozen.
   */
  async mergeAndUnload(options: MergeAndUnloadOptions = {}): Promise<M> {
    await mergeAndRemove(this.#adapters, options);
    return this.getBaseModel();
  }
  /** Takes what is merged out and the wrappers away: the base as it was. */
  unload(): M {
    if (this.mergedAdapters.length > 0) unmerge(this.#adapters);
    this.#adapters.removeAll();
    return this.getBaseModel();
  }

  /** Reads an adapter folder under a new name, not active. On failure nothing has changed. */
  loadAdapter(source: FolderSource, name: string, options: LoadOptions = {}): Promise<LoadReport> {
    return loadAdapterFiles(this.#adapters, source, name, options);
  }
  /** Writes each adapter as PEFT does: "default" into the folder, others into sub-folders of their names. */
  async savePretrained(target: FolderTarget, options: SaveOptions = {}): Promise<void> {
    const names = options.selectedAdapters ?? this.#adapters.names;
    if (names.length === 0) throw new AdapterError("UNKNOWN", "savePretrained: must have an adapter to save, got none");
    for (const name of names) this.#adapters.known(name);
    await saveAdapters(this.#adapters, target, names, options);
  }

  /** Trainable and all parameters; tied ones count once. */
  getNbTrainableParameters(): { trainable: number; all: number } {
    let trainable = 0;
    let all = 0;
    for (const t of this.parameters()) {
      all += t.size;
      if (t.requiresGrad) trainable += t.size;
    }
    return { trainable, all };
  }
  /** PEFT's line. */
  trainableLine(): string {
    const { trainable, all } = this.getNbTrainableParameters();
    const count = (n: number): string => n.toLocaleString("en-US");
    return `trainable params: ${count(trainable)} || all params: ${count(all)} || trainable%: ${((100 * trainable) / all).toFixed(4)}`;
  }
  printTrainableParameters(): void {
    console.log(this.trainableLine());
  }
  getLayerStatus(): LayerStatus[] {
    return layerStatus(this.#adapters);
  }
  getModelStatus(): ModelStatus {
    return modelStatus(this);
  }

  /** Path in the base model → layer, for the modules that have token rows. */
  layers(): Map<string, TrainableTokensLayer> {
    return this.#adapters.tokenLayers();
  }
  /** Stored flag, whether or not the adapter is enabled. */
  requiresGradOf(name: string): boolean {
    return this.#adapters.known(name).requiresGrad;
  }
}

/** Wraps a model in place, freezes it, and makes one adapter active and trainable. On failure the model is as it was. */
export function getPeftModel<M extends AdaptableModel>(
  model: M,
  config: PeftConfig,
  options: PeftOptions = {},
): PeftModel<M> {
  const { adapterName = "default", onWarning = toConsole, ...rest } = options;
  checkUnmixed("getPeftModel", rest);
  const restore = rememberFlags(model);
  try {
    const peft = new PeftModel(model, onWarning);
    peft.addAdapter(adapterName, config, rest);
    peft.setAdapter(adapterName, { inferenceMode: config.inference_mode });
    return peft.train();
  } catch (error) {
    restore();
    throw error;
  }
}

/** PEFT's models of several types at once are not here. Throws ConfigError UNSUPPORTED. */
function checkUnmixed(where: string, options: object): void {
  const { mixed = false } = options as { readonly mixed?: unknown };
  if (mixed === false) return;
  const message = `${where}: adapters of a model are of one type, so that mixed must be false, got ${JSON.stringify(mixed)}`;
  throw new ConfigError("UNSUPPORTED", message, { mixed });
}

/** The rows that train: what an optimizer takes. */
export const tokenParameters = (peft: AnyPeftModel): Tensor[] => {
  const rows = [...peft.layers().values()].flatMap((layer) => Object.values(layer.trainable_tokens_delta));
  return [...new Set(rows)].filter((t) => t.requiresGrad);
};

/** What trains beside rows: LoRA's matrices, biases, modules in full. */
export const loraParameters = (peft: AnyPeftModel): Tensor[] => {
  const rows = new Set(tokenParameters(peft));
  return peft.parameters().filter((t) => t.requiresGrad && !rows.has(t));
};
