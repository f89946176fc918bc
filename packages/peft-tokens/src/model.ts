import { Embedding, Linear, Module, TiedHead, replaceModule } from "@neolog/nn";
import type { CausalLM, CausalLMOutput, GenerateOptions, ModelInputs } from "@neolog/models";
import { backward } from "@neolog/autograd";
import { type Tensor, assign, persist, untracked, zeros } from "@neolog/tensor";
import { type TrainableTokensConfig, checkRange } from "./config.ts";
import { AdapterError, ConfigError } from "./errors.ts";
import { type LoadOptions, type LoadReport, loadAdapterFiles, readConfig } from "./files.ts";
import type { FolderSource, FolderTarget } from "@neolog/checkpoint";
import { type AdapterState, type RowInit, TrainableTokensLayer } from "./layer.ts";
import { type SaveOptions, saveAdapters } from "./save.ts";
import { type LayerStatus, type ModelStatus, layerStatus, modelStatus } from "./status.ts";
import { resolveTargets } from "./targets.ts";
import { type OnWarning, toConsole } from "./warnings.ts";

export interface AddAdapterOptions {
  /** float32 rows over a bfloat16 or float16 base; true by default. */
  readonly autocastAdapterDtype?: boolean;
  /** Seed of rows that do not start as the base's. */
  readonly seed?: number;
}
export interface PeftOptions extends AddAdapterOptions {
  /** "default" where absent. */
  readonly adapterName?: string;
  /** Told of warnings; the console where absent. */
  readonly onWarning?: OnWarning;
}
export interface MergeOptions {
  /** The active adapters where absent. */
  readonly adapterNames?: readonly string[];
  /** Refuse to write NaN or infinity. */
  readonly safeMerge?: boolean;
  /** Where rows hold for one side of a tie only, give the head its own copy of the table first. */
  readonly untie?: boolean;
}
export interface MergeAndUnloadOptions extends MergeOptions {
  readonly onProgress?: (done: number, total: number) => void;
}

interface Adapter {
  config: TrainableTokensConfig;
  /** Paths of the modules whose rows it has. */
  targets: readonly string[];
  requiresGrad: boolean;
}

/** Puts the base one level down, where PEFT's keys have it: base_model.model.… */
class BaseHolder extends Module {
  readonly model: CausalLM;
  constructor(model: CausalLM) {
    super();
    this.model = model;
  }
  forward(inputs: ModelInputs): CausalLMOutput {
    return this.model.forward(inputs);
  }
}

/** A base model with adapters: named sets of token rows that can be set, disabled, merged, unloaded, saved. */
export class PeftModel extends Module {
  readonly base_model: BaseHolder;
  readonly #adapters = new Map<string, Adapter>();
  readonly #state: AdapterState;
  readonly #onWarning: OnWarning;

  constructor(model: CausalLM, onWarning: OnWarning = toConsole) {
    super();
    if ([...model.namedModules()].some(([, module]) => module instanceof TrainableTokensLayer)) {
      throw new AdapterError(
        "ALREADY_WRAPPED",
        "getPeftModel: the model must be a plain one, got one with adapters; use addAdapter, or unload() first",
      );
    }
    this.base_model = new BaseHolder(model);
    this.#onWarning = onWarning;
    this.#state = { enabled: true, active: [], merged: [], weightBuilt: (module) => this.#warnOfWeight(module) };
    for (const p of model.parameters()) p.requiresGrad = false;
  }

  /** Loads an adapter folder onto a model and activates it; frozen unless `isTrainable`. */
  static async fromPretrained(
    model: CausalLM,
    source: FolderSource,
    {
      adapterName = "default",
      onWarning = toConsole,
      ...options
    }: LoadOptions & { adapterName?: string; onWarning?: OnWarning } = {},
  ): Promise<PeftModel> {
    const restore = rememberFlags(model);
    try {
      const peft = new PeftModel(model, onWarning);
      await peft.loadAdapter(source, adapterName, options);
      peft.#state.active = [adapterName];
      peft.#applyRequiresGrad();
      return peft;
    } catch (error) {
      restore();
      throw error;
    }
  }

  get #base(): CausalLM {
    return this.base_model.model;
  }
  getBaseModel(): CausalLM {
    return this.#base;
  }
  /** Adapter name → config. */
  get peftConfig(): Record<string, TrainableTokensConfig> {
    return Object.fromEntries([...this.#adapters].map(([name, { config }]) => [name, config]));
  }
  /** In the order they were set. */
  get activeAdapters(): readonly string[] {
    return this.#state.active;
  }
  get activeAdapter(): string | undefined {
    return this.#state.active[0];
  }
  /** In the order they were merged. */
  get mergedAdapters(): readonly string[] {
    return this.#state.merged;
  }
  get enabled(): boolean {
    return this.#state.enabled;
  }

  forward(inputs: ModelInputs): CausalLMOutput {
    return this.#base.forward(inputs);
  }
  generate(options: GenerateOptions): Promise<number[][]> {
    return this.#base.generate(options);
  }
  /** autograd's backward. Throws AdapterError NOTHING_TO_TRAIN where no adapter is trainable, in effect and unmerged. */
  backward(loss: Tensor): void {
    const trainable = [...this.#adapters].filter(([, { requiresGrad }]) => requiresGrad).map(([name]) => name);
    const { enabled, active, merged } = this.#state;
    if (!enabled || !trainable.some((name) => active.includes(name) && !merged.includes(name))) {
      throw new AdapterError(
        "NOTHING_TO_TRAIN",
        `backward: a trainable adapter must be enabled, active and unmerged, got ${enabled ? "" : "adapters disabled, "}trainable ${list(trainable)}, active ${list(active)}, merged ${list(merged)}; enable, set or unmerge first`,
        { enabled, trainable, active, merged },
      );
    }
    backward(loss);
  }

  /** Wraps what the config targets and adds its rows, neither active nor trainable. On failure nothing has changed. */
  addAdapter(name: string, config: TrainableTokensConfig, options: AddAdapterOptions = {}): void {
    this.#checkName(name);
    this.#add(name, config, resolveTargets(this.#base, config.target_modules), options);
  }
  #add(name: string, config: TrainableTokensConfig, targets: readonly string[], options: AddAdapterOptions): void {
    for (const path of targets) checkRange(config.token_indices, this.#tableAt(path).shape[0]!, path);
    const init: RowInit = {
      init_weights: config.init_weights,
      autocastAdapterDtype: options.autocastAdapterDtype ?? true,
      seed: options.seed ?? 0,
    };
    for (const path of targets) this.#layerAt(path).add(name, config.token_indices, init);
    const single = targets.length === 1 && targets[0] === this.#base.embeddingPath ? targets[0] : config.target_modules;
    const resolved = config.isFromFile ? config : config.withTargets(single);
    this.#adapters.set(name, { config: resolved, targets, requiresGrad: false });
    this.#applyRequiresGrad();
  }

  /** Exactly these become active and train (unless `inferenceMode`); all others are frozen. Merged rows are taken out first. */
  setAdapter(names: string | readonly string[], { inferenceMode = false }: { inferenceMode?: boolean } = {}): void {
    const list = typeof names === "string" ? [names] : [...new Set(names)];
    for (const name of list) this.#known(name);
    this.#checkOverlap(list);
    if (this.#state.merged.length > 0) {
      this.#warn("UNMERGED_FIRST", `setAdapter: ${this.#state.merged.join(", ")} was merged and is now unmerged`);
      this.unmergeAdapter();
    }
    this.#state.active = list;
    for (const [name, adapter] of this.#adapters) adapter.requiresGrad = list.includes(name) && !inferenceMode;
    this.#applyRequiresGrad();
  }

  /** Until the result is disposed the model is the base; then it is enabled or disabled as before. Nests. */
  disableAdapter(): Disposable {
    const before = this.#state.enabled;
    this.disableAdapterLayers();
    return {
      [Symbol.dispose]: () => {
        this.#state.enabled = before;
        this.#applyRequiresGrad();
      },
    };
  }
  /** Runs `f` on the base model; where it returns a promise, until that settles. */
  withAdapterDisabled<T>(f: () => T): T {
    const disabled = this.disableAdapter();
    const restore = (): void => disabled[Symbol.dispose]();
    let result: T;
    try {
      result = f();
    } catch (error) {
      restore();
      throw error;
    }
    if (result instanceof Promise) return result.finally(restore) as T;
    restore();
    return result;
  }
  disableAdapterLayers(): void {
    this.#state.enabled = false;
    this.#applyRequiresGrad();
  }
  enableAdapterLayers(): void {
    this.#state.enabled = true;
    this.#applyRequiresGrad();
  }

  /** Sets the stored flags; activation stays. */
  setRequiresGrad(names: string | readonly string[], flag = true): void {
    const adapters = [names].flat().map((name) => this.#known(name));
    for (const adapter of adapters) adapter.requiresGrad = flag;
    this.#applyRequiresGrad();
  }

  /**
   * Writes trained rows into the tables, in place, and remembers them for `unmergeAdapter`. All checks come first: when it throws,
   * no table has changed. Without `safeMerge` the change is complete when the call returns.
   */
  async mergeAdapter({ adapterNames, safeMerge = false, untie = false }: MergeOptions = {}): Promise<void> {
    const names = this.#resolveMerge(adapterNames, untie);
    if (safeMerge) await this.#checkFinite(names);
    this.#merge(names);
  }

  /** Puts the original rows back, last merged first. */
  unmergeAdapter(): void {
    if (this.#state.merged.length === 0) this.#warn("NOT_MERGED", "unmergeAdapter: no adapter is merged");
    for (const name of this.#state.merged.toReversed()) {
      for (const layer of this.#layersOf(name)) layer.write(name, "original");
    }
    this.#state.merged = [];
  }

  /**
   * Merges the listed (default: active) adapters, beside those that are merged, and takes the wrappers away. Returns the same base
   * object, still frozen.
   */
  async mergeAndUnload({
    onProgress,
    adapterNames,
    safeMerge = false,
    untie = false,
  }: MergeAndUnloadOptions = {}): Promise<CausalLM> {
    const staying = this.#state.merged.filter((name) => !(adapterNames ?? this.#state.active).includes(name));
    const names = this.#resolveMerge(adapterNames, untie, []);
    if (staying.length > 0)
      this.#warn("ALREADY_MERGED", `mergeAndUnload: ${list(staying)} was merged and stays in the base`);
    if (safeMerge) await this.#checkFinite(names);
    this.#merge(names);
    this.#removeWrappers(onProgress);
    return this.#base;
  }

  /** Takes merged rows out and the wrappers away: the base as it was. */
  unload(): CausalLM {
    if (this.#state.merged.length > 0) this.unmergeAdapter();
    this.#removeWrappers();
    return this.#base;
  }

  /**
   * Forgets an adapter. Deleting the only active one activates the first that is left, in the order of names, and does not share
   * an id with what is merged.
   */
  deleteAdapter(name: string): void {
    const { targets } = this.#known(name);
    if (this.#state.merged.includes(name)) {
      throw new AdapterError("MERGED", `deleteAdapter: ${name} must not be merged; unmerge it first`, { name });
    }
    for (const path of targets) {
      const layer = this.#base.moduleAt(path) as TrainableTokensLayer;
      layer.remove(name);
      if (layer.adapters.length === 0) replaceModule(this.#base, path, () => layer.base_layer);
    }
    this.#adapters.delete(name);
    const wasActive = this.#state.active.includes(name);
    this.#state.active = this.#state.active.filter((other) => other !== name);
    const next = this.#nextActive();
    if (wasActive && this.#state.active.length === 0 && next !== undefined) {
      this.#warn("ACTIVE_DELETED", `deleteAdapter: ${name} was the active adapter; ${next} is active now`);
      this.#state.active = [next];
      this.#adapters.get(next)!.requiresGrad = true;
    }
    this.#applyRequiresGrad();
  }

  #nextActive(): string | undefined {
    return [...this.#adapters.keys()]
      .toSorted()
      .find((name) => this.#overlap([...new Set([...this.#state.merged, name])]) === null);
  }

  /** Reads an adapter folder under a new name, not active. On failure nothing has changed. */
  async loadAdapter(source: FolderSource, name: string, options: LoadOptions = {}): Promise<LoadReport> {
    this.#checkName(name);
    const config = options.config ?? (await readConfig(source, options.subfolder, this.#onWarning));
    const { autocastAdapterDtype = true } = options;
    const add = (targets: readonly string[]): void => this.#add(name, config, targets, { autocastAdapterDtype });
    const report = await loadAdapterFiles(this, source, { name, config, add }, options, this.#onWarning);
    this.#adapters.get(name)!.requiresGrad = options.isTrainable ?? false;
    this.#applyRequiresGrad();
    return report;
  }

  /** Writes each adapter as PEFT does: "default" into the folder, others into sub-folders of their names. */
  async savePretrained(target: FolderTarget, options: SaveOptions = {}): Promise<void> {
    const names = options.selectedAdapters ?? [...this.#adapters.keys()];
    if (names.length === 0) throw new AdapterError("UNKNOWN", "savePretrained: must have an adapter to save, got none");
    for (const name of names) this.#known(name);
    await saveAdapters(this, target, names, options, this.#onWarning);
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
    return layerStatus(this);
  }
  getModelStatus(): ModelStatus {
    return modelStatus(this);
  }

  /** Path in the base model → layer, for the modules that have adapters. */
  layers(): Map<string, TrainableTokensLayer> {
    const layers = [...this.#base.namedModules()].filter(([, module]) => module instanceof TrainableTokensLayer);
    return new Map(layers as [string, TrainableTokensLayer][]);
  }
  /** Stored flag, whether or not the adapter is enabled. */
  requiresGradOf(name: string): boolean {
    return this.#known(name).requiresGrad;
  }

  #warn(code: Parameters<OnWarning>[0]["code"], message: string): void {
    this.#onWarning({ code, message });
  }
  #warnedOfWeight = false;
  #warnOfWeight(module: string): void {
    if (this.#warnedOfWeight) return;
    this.#warnedOfWeight = true;
    this.#warn("WEIGHT_BUILT", `weight: a copy of the whole table was built, since adapters wrap the ${module}`);
  }
  #known(name: string): Adapter {
    const adapter = this.#adapters.get(name);
    if (adapter) return adapter;
    const known = [...this.#adapters.keys()];
    throw new AdapterError("UNKNOWN", `adapter "${name}" must be one of ${known.join(", ") || "(none)"}`, {
      name,
      known,
    });
  }
  #checkName(name: string): void {
    if (name === "" || name === "__base__" || /[./\\]/.test(name)) {
      throw new AdapterError(
        "NAME",
        `an adapter name must not be empty or "__base__", nor hold . / \\, got ${JSON.stringify(name)}`,
        { name },
      );
    }
    if (this.#adapters.has(name)) {
      throw new AdapterError("EXISTS", `adapter "${name}" must be new, got one that is there; delete it first`, {
        name,
      });
    }
  }
  #layersOf(name: string): TrainableTokensLayer[] {
    return this.#known(name).targets.map((path) => this.#base.moduleAt(path) as TrainableTokensLayer);
  }

  /** The layer at a path; wraps the module there where it is still plain. */
  #layerAt(path: string): TrainableTokensLayer {
    const module = this.#base.moduleAt(path)!;
    if (module instanceof TrainableTokensLayer) return module;
    return replaceModule(
      this.#base,
      path,
      (base) => new TrainableTokensLayer(base as Embedding | Linear | TiedHead, this.#state, () => this.#tableAt(path)),
    );
  }
  #tableAt(path: string): Tensor {
    const module = this.#base.moduleAt(path)!;
    const base = module instanceof TrainableTokensLayer ? module.base_layer : module;
    if (base instanceof TiedHead) return this.#tableAt(this.#base.embeddingPath);
    return (base as Embedding | Linear).weight;
  }

  #applyRequiresGrad(): void {
    for (const [name, { requiresGrad }] of this.#adapters) {
      for (const layer of this.#layersOf(name)) {
        layer.trainable_tokens_delta[name]!.requiresGrad = requiresGrad && this.#state.enabled;
      }
    }
  }

  /** The first two of the adapters that share ids on a module, or null. */
  #overlap(names: readonly string[]): { adapters: [string, string]; ids: number[]; module: string } | null {
    for (const [module, layer] of this.layers()) {
      const owner = new Map<number, string>();
      for (const name of names.filter((n) => layer.has(n))) {
        const ids = [...layer.indicesOf(name)].filter((id) => owner.has(id));
        if (ids.length > 0) return { adapters: [owner.get(ids[0]!)!, name], ids, module };
        for (const id of layer.indicesOf(name)) owner.set(id, name);
      }
    }
    return null;
  }
  /** Adapters whose rows would be in effect together must not share an id on any module. */
  #checkOverlap(names: readonly string[]): void {
    const found = this.#overlap(names);
    if (!found) return;
    const { adapters, ids, module } = found;
    throw new AdapterError(
      "OVERLAP",
      `adapters in effect together must have different ids, got ${adapters.join(" and ")} sharing ${list(ids)} on ${module}`,
      found,
    );
  }

  /** The names to merge now; throws where merging is impossible, and changes nothing. */
  #resolveMerge(adapterNames: readonly string[] | undefined, untie: boolean, staying = this.#state.active): string[] {
    if (adapterNames !== undefined && !Array.isArray(adapterNames)) {
      throw new ConfigError("ARGUMENT", `adapterNames: must be a list of names, got ${JSON.stringify(adapterNames)}`, {
        adapterNames,
      });
    }
    const asked = adapterNames ?? this.#state.active;
    for (const name of asked) this.#known(name);
    const repeated = asked.filter((name, i) => asked.indexOf(name) < i || this.#state.merged.includes(name));
    if (repeated.length > 0)
      this.#warn("ALREADY_MERGED", `mergeAdapter: ${[...new Set(repeated)].join(", ")} is merged already`);
    const names = [...new Set(asked)].filter((name) => !this.#state.merged.includes(name));
    this.#checkOverlap([...new Set([...this.#state.merged, ...names, ...staying])]);
    for (const name of names) {
      const shared = this.#sharedTarget(name);
      if (shared !== undefined && !untie) {
        throw new AdapterError(
          "SHARED_TABLE",
          `mergeAdapter: ${name} replaces rows of ${shared} alone, but its table is also ${this.#base.embeddingPath}'s; untie: true gives ${shared} its own`,
          {
            name,
            module: shared,
          },
        );
      }
    }
    return names;
  }
  async #checkFinite(names: readonly string[]): Promise<void> {
    for (const name of names) {
      for (const path of this.#known(name).targets) {
        const found = await (this.#base.moduleAt(path) as TrainableTokensLayer).nonFinite(name);
        if (!found) continue;
        const { count, row, column } = found;
        throw new AdapterError(
          "NON_FINITE",
          `mergeAdapter: rows must be finite, got ${count} NaN or infinite values in ${name} on ${path}, the first at [${row}, ${column}]`,
          {
            name,
            module: path,
            ...found,
          },
        );
      }
    }
  }
  /** A target that reads a table which is the embedding's. */
  #sharedTarget(name: string): string | undefined {
    return this.#known(name).targets.find((path) => this.#base.tiedPaths.includes(path));
  }
  #merge(names: readonly string[]): void {
    if (names.some((name) => this.#sharedTarget(name) !== undefined)) this.#untie();
    for (const name of names) for (const layer of this.#layersOf(name)) layer.write(name, "trained");
    this.#state.merged = [...this.#state.merged, ...names];
  }
  /** Gives every tied module its own copy of the table; adapters of the embedding have the same rows on both from now on. */
  #untie(): void {
    const { embeddingPath, tiedPaths } = this.#base;
    const embedding = this.#base.moduleAt(embeddingPath)!;
    const table = this.#tableAt(embeddingPath);
    const inherited = embedding instanceof TrainableTokensLayer ? embedding.adapters : [];
    for (const path of tiedPaths) {
      const weight = untracked(() => persist(zeros(table.shape, table.dtype, table.backend)));
      assign(weight, table);
      const wrapped = this.#base.moduleAt(path) instanceof TrainableTokensLayer;
      replaceModule(this.#base, wrapped ? `${path}.base_layer` : path, () => new Linear(weight));
      for (const name of inherited) this.#layerAt(path).share(name, embedding as TrainableTokensLayer);
    }
    for (const name of inherited) {
      const adapter = this.#known(name);
      adapter.targets = [...adapter.targets, ...tiedPaths];
      adapter.config = adapter.config.withTargets([...adapter.targets]);
    }
    this.#base.config = { ...this.#base.config, tie_word_embeddings: false };
    this.#warn("UNTIED", `mergeAdapter: ${list(tiedPaths)} has its own table now; the model is larger by one table`);
  }
  #removeWrappers(onProgress?: (done: number, total: number) => void): void {
    const layers = [...this.layers()];
    layers.forEach(([path, layer], i) => {
      replaceModule(this.#base, path, () => layer.base_layer);
      for (const name of layer.adapters) layer.remove(name);
      onProgress?.(i + 1, layers.length);
    });
    this.#adapters.clear();
    this.#state.active = [];
    this.#state.merged = [];
  }
}

const list = (items: readonly (string | number)[]): string => items.join(", ") || "none";

/** Wraps a model in place, freezes it, and makes one adapter active and trainable. On failure the model is as it was. */
export function getPeftModel(model: CausalLM, config: TrainableTokensConfig, options: PeftOptions = {}): PeftModel {
  const { adapterName = "default", onWarning = toConsole, ...rest } = options;
  const restore = rememberFlags(model);
  try {
    const peft = new PeftModel(model, onWarning);
    peft.addAdapter(adapterName, config, rest);
    peft.setAdapter(adapterName, { inferenceMode: config.inference_mode });
    return peft;
  } catch (error) {
    restore();
    throw error;
  }
}

/** A function that puts `requiresGrad` of the parameters back. */
function rememberFlags(model: CausalLM): () => void {
  const flags = model.parameters().map((p) => [p, p.requiresGrad] as const);
  return () => {
    for (const [p, flag] of flags) p.requiresGrad = flag;
  };
}

/** The rows that train: what an optimizer takes. */
export const tokenParameters = (peft: PeftModel): Tensor[] => {
  const rows = [...peft.layers().values()].flatMap((layer) => Object.values(layer.trainable_tokens_delta));
  return [...new Set(rows)].filter((t) => t.requiresGrad);
};
