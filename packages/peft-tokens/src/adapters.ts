import type { Tensor } from "@neolog/tensor";
import type { AdaptableModel } from "./adaptable.ts";
import type { AdapterLayer } from "./adapterLayer.ts";
import { EffectiveSet, type OverlapPolicy } from "./effective.ts";
import { AdapterError, ConfigError } from "./errors.ts";
import { applyRequiresGrad } from "./flags.ts";
import { TrainableTokensLayer } from "./layer.ts";
import type { InitPolicy } from "./init.ts";
import { checkOverlap, overlapOf } from "./overlap.ts";
import { type AddAdapterOptions, type PeftConfig, planAdapter } from "./registry.ts";
import { unmerge } from "./merge.ts";
import { type OnWarning, type WarningCode, toConsole } from "./warnings.ts";
import { adapterLayers, unwrapAt } from "./wrap.ts";

export interface SetAdapterOptions {
  /** They do not train. */
  readonly inferenceMode?: boolean;
  /** Whose row an id has that several of them train, and which alone then learns it; an error by default. */
  readonly overlap?: OverlapPolicy;
}

/** One adapter of a model. */
export interface Adapter {
  config: PeftConfig;
  /** As set; in effect only while adapters are enabled. */
  requiresGrad: boolean;
  /** How its token rows started, where that was asked for in code. */
  readonly init?: { readonly policy: InitPolicy; readonly seed: number };
  /** Biases of the base that train with it, by the paths of their modules. */
  readonly biases?: ReadonlyMap<string, Tensor>;
}

/** The adapters of a model: which there are, which count. Works on any module tree; PeftModel is its face. */
export class Adapters {
  readonly root: AdaptableModel;
  readonly state = new EffectiveSet();
  readonly entries = new Map<string, Adapter>();
  readonly onWarning: OnWarning;
  #warnedOfWeight = false;

  /** Throws AdapterError ALREADY_WRAPPED where the tree has adapters. */
  constructor(root: AdaptableModel, onWarning: OnWarning = toConsole) {
    if (adapterLayers(root).size > 0) {
      throw new AdapterError(
        "ALREADY_WRAPPED",
        "getPeftModel: the model must be a plain one, got one with adapters; use addAdapter, or unload() first",
      );
    }
    this.root = root;
    this.onWarning = onWarning;
    if ("rerunner" in root) root.rerunner = () => this.state.asNow();
  }

  get names(): string[] {
    return [...this.entries.keys()];
  }
  /** Throws AdapterError UNKNOWN. */
  known(name: string): Adapter {
    const adapter = this.entries.get(name);
    if (adapter) return adapter;
    throw new AdapterError("UNKNOWN", `adapter "${name}" must be one of ${this.names.join(", ") || "(none)"}`, {
      name,
      known: this.names,
    });
  }
  warn(code: WarningCode, message: string): void {
    this.onWarning({ code, message });
  }
  /** A layer built a copy of a whole table: worth one warning. */
  readonly weightBuilt = (module: string): void => {
    if (this.#warnedOfWeight) return;
    this.#warnedOfWeight = true;
    this.warn("WEIGHT_BUILT", `weight: a copy of the whole table was built, since adapters wrap the ${module}`);
  };

  /** Path in the unadapted model → layer. */
  readonly layers = (): Map<string, AdapterLayer> => adapterLayers(this.root);
  /** Those with token rows. */
  readonly tokenLayers = (): Map<string, TrainableTokensLayer> => {
    const rows = [...this.layers()].filter(([, layer]) => layer instanceof TrainableTokensLayer);
    return new Map(rows as [string, TrainableTokensLayer][]);
  };
  layersOf(name: string): AdapterLayer[] {
    return [...this.layers().values()].filter((layer) => layer.has(name));
  }

  /** Throws AdapterError NAME or EXISTS. */
  checkNew(name: string): void {
    if (name === "" || name === "__base__" || /[./\\]/.test(name)) {
      throw new AdapterError(
        "NAME",
        `an adapter name must not be empty or "__base__", nor hold . / \\, got ${JSON.stringify(name)}`,
        { name },
      );
    }
    if (this.entries.has(name)) {
      throw new AdapterError("EXISTS", `adapter "${name}" must be new, got one that is there; delete it first`, {
        name,
      });
    }
  }

  /** Adds what the config asks for, neither active nor trainable. On failure nothing has changed. */
  add(name: string, config: PeftConfig, options: AddAdapterOptions = {}): void {
    this.checkNew(name);
    const plan = planAdapter(this, name, config, options);
    try {
      for (const { attach } of plan.placements) attach();
    } catch (error) {
      this.detach(name);
      throw error;
    }
    const { config: resolved, biases } = plan;
    const init = options.init === undefined ? {} : { init: { policy: options.init, seed: options.seed ?? 0 } };
    this.entries.set(name, { config: resolved, requiresGrad: false, ...init, ...(biases ? { biases } : {}) });
    applyRequiresGrad(this);
  }

  /** Takes an adapter's parts away, and the layers that are empty then. */
  detach(name: string): void {
    for (const [path, layer] of this.layers()) {
      layer.remove(name);
      if (layer.adapters.length === 0) unwrapAt(this.root, path);
    }
  }

  /** Active adapters that may have rows of the same ids. */
  get sharing(): readonly string[] {
    return this.state.overlap === "error" ? [] : this.state.active;
  }

  /** Exactly these become active and train (unless `inferenceMode`); all others are frozen. Merged ones are unmerged first. */
  set(names: readonly string[], { inferenceMode = false, overlap = "error" }: SetAdapterOptions = {}): void {
    const active = [...new Set(names)];
    for (const name of active) this.known(name);
    checkPolicy(overlap);
    checkOverlap(this, active, overlap === "error" ? [] : active);
    if (this.state.merged.length > 0) {
      this.warn("UNMERGED_FIRST", `setAdapter: ${this.state.merged.join(", ")} was merged and is now unmerged`);
      unmerge(this);
    }
    this.state.active = active;
    this.state.overlap = overlap;
    for (const [name, adapter] of this.entries) adapter.requiresGrad = active.includes(name) && !inferenceMode;
    applyRequiresGrad(this);
  }

  /**
   * Forgets an adapter. Deleting the only active one activates the first that is left, in the order of names, and does not share
   * an id with what is merged. Throws AdapterError UNKNOWN or MERGED.
   */
  delete(name: string): void {
    this.known(name);
    const { state } = this;
    if (state.merged.includes(name))
      throw new AdapterError("MERGED", `deleteAdapter: ${name} must not be merged; unmerge it first`, { name });
    this.detach(name);
    for (const t of this.known(name).biases?.values() ?? []) t.requiresGrad = false;
    this.entries.delete(name);
    const wasActive = state.active.includes(name);
    state.active = state.active.filter((other) => other !== name);
    const next = this.names.toSorted().find((other) => !overlapOf(this, [...new Set([...state.merged, other])]));
    if (wasActive && state.active.length === 0 && next !== undefined) {
      this.warn("ACTIVE_DELETED", `deleteAdapter: ${name} was the active adapter; ${next} is active now`);
      state.active = [next];
      this.known(next).requiresGrad = true;
    }
    applyRequiresGrad(this);
  }

  /** Takes all wrappers away, whatever is merged. */
  removeAll(onProgress?: (done: number, total: number) => void): void {
    const layers = [...this.layers()];
    layers.forEach(([path, layer], i) => {
      unwrapAt(this.root, path);
      for (const name of layer.adapters) layer.remove(name);
      onProgress?.(i + 1, layers.length);
    });
    for (const { biases } of this.entries.values()) for (const t of biases?.values() ?? []) t.requiresGrad = false;
    this.entries.clear();
    this.state.active = [];
    this.state.merged = [];
  }
}

function checkPolicy(overlap: OverlapPolicy): void {
  if (["error", "first", "last"].includes(overlap)) return;
  throw new ConfigError("ARGUMENT", `overlap: must be "error", "first" or "last", got ${JSON.stringify(overlap)}`, {
    overlap,
  });
}
