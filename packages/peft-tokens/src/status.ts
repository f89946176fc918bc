import type { PeftModel } from "./model.ts";

/** What one wrapped module, or one tied to it, has. */
export interface LayerStatus {
  readonly name: string;
  readonly module_type: "TrainableTokensLayer";
  readonly enabled: boolean;
  readonly active_adapters: readonly string[];
  readonly merged_adapters: readonly string[];
  readonly requires_grad: Readonly<Record<string, boolean>>;
  readonly available_adapters: readonly string[];
  readonly devices: Readonly<Record<string, readonly string[]>>;
}

export interface ModelStatus extends Omit<LayerStatus, "name" | "module_type"> {
  readonly base_model_type: string;
  readonly adapter_model_type: "TrainableTokensModel";
  readonly peft_types: Readonly<Record<string, string>>;
  readonly trainable_params: number;
  readonly total_params: number;
  readonly num_adapter_layers: number;
}

/** One entry per wrapped module; modules tied to a wrapped embedding have their own. */
export function layerStatus(peft: PeftModel): LayerStatus[] {
  const { embeddingPath, tiedPaths } = peft.getBaseModel();
  const layers = peft.layers();
  return [...layers].flatMap(([path, layer]) => {
    const names = path === embeddingPath ? [path, ...tiedPaths.filter((tied) => !layers.has(tied))] : [path];
    return names.map((name) => ({
      name,
      module_type: "TrainableTokensLayer" as const,
      enabled: peft.enabled,
      active_adapters: peft.activeAdapters.filter((adapter) => layer.has(adapter)),
      merged_adapters: peft.mergedAdapters.filter((adapter) => layer.has(adapter)),
      requires_grad: Object.fromEntries(
        layer.adapters.map((adapter) => [adapter, layer.trainable_tokens_delta[adapter]!.requiresGrad]),
      ),
      available_adapters: layer.adapters.toSorted(),
      devices: Object.fromEntries(layer.adapters.map((adapter) => [adapter, [layer.table.backend.name]])),
    }));
  });
}

/** The whole model's. Layers share one state, so that they never disagree. */
export function modelStatus(peft: PeftModel): ModelStatus {
  const { trainable, all } = peft.getNbTrainableParameters();
  const names = Object.keys(peft.peftConfig);
  const backend = [...peft.layers().values()][0]?.table.backend.name;
  return {
    base_model_type: peft.getBaseModel().constructor.name,
    adapter_model_type: "TrainableTokensModel",
    peft_types: Object.fromEntries(names.map((name) => [name, peft.peftConfig[name]!.peft_type])),
    trainable_params: trainable,
    total_params: all,
    num_adapter_layers: layerStatus(peft).length,
    enabled: peft.enabled,
    active_adapters: peft.activeAdapters,
    merged_adapters: peft.mergedAdapters,
    requires_grad: Object.fromEntries(names.map((name) => [name, peft.requiresGradOf(name) && peft.enabled])),
    available_adapters: names.toSorted(),
    devices: Object.fromEntries(names.map((name) => [name, backend === undefined ? [] : [backend]])),
  };
}
