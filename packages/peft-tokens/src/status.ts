import type { Adapters } from "./adapters.ts";
import type { AnyPeftModel } from "./model.ts";
import { TrainableTokensLayer } from "./layer.ts";
import { ModulesToSaveWrapper } from "./lora/modulesToSave.ts";
import { tiedTo } from "./ties.ts";

/** What one wrapped module, or one tied to it, has. */
export interface LayerStatus {
  readonly name: string;
  readonly module_type: string;
  readonly enabled: boolean;
  readonly active_adapters: readonly string[];
  readonly merged_adapters: readonly string[];
  readonly requires_grad: Readonly<Record<string, boolean>>;
  readonly available_adapters: readonly string[];
  readonly devices: Readonly<Record<string, readonly string[]>>;
}

export interface ModelStatus extends Omit<LayerStatus, "name" | "module_type"> {
  readonly base_model_type: string;
  readonly adapter_model_type: string;
  readonly peft_types: Readonly<Record<string, string>>;
  readonly trainable_params: number;
  readonly total_params: number;
  readonly num_adapter_layers: number;
}

/** One entry per wrapped module; modules tied to a wrapped embedding have their own. Fully trained ones have none, as in PEFT. */
export function layerStatus({ root, layers, state }: Adapters): LayerStatus[] {
  const all = layers();
  const tuned = [...all].filter(([, layer]) => !(layer instanceof ModulesToSaveWrapper));
  return tuned.flatMap(([path, layer]) => {
    const tied = layer instanceof TrainableTokensLayer ? tiedTo(root, path).filter((user) => !all.has(user)) : [];
    const at = layer.baseKey.startsWith("token_adapter.") ? ".token_adapter" : "";
    const names = [path, ...tied].map((module) => module + at);
    return names.map((name) => ({
      name,
      module_type: layer.moduleType,
      enabled: state.enabled,
      active_adapters: state.active.filter((adapter) => layer.has(adapter)),
      merged_adapters: state.merged.filter((adapter) => layer.has(adapter)),
      requires_grad: Object.fromEntries(
        layer.adapters.map((adapter) => [adapter, [...layer.tensorsOf(adapter).values()].some((t) => t.requiresGrad)]),
      ),
      available_adapters: layer.adapters.toSorted(),
      devices: Object.fromEntries(layer.adapters.map((adapter) => [adapter, [layer.backend.name]])),
    }));
  });
}

const MODEL_TYPES = { TRAINABLE_TOKENS: "TrainableTokensModel", LORA: "LoraModel" } as const;

/** The whole model's. Layers share one state, so that they never disagree. */
export function modelStatus(peft: AnyPeftModel): ModelStatus {
  const { adapters } = peft;
  const { trainable, all } = peft.getNbTrainableParameters();
  const { names, state } = adapters;
  const backend = [...adapters.layers().values()][0]?.backend.name;
  const types = names.map((name) => [name, adapters.known(name).config.peft_type] as const);
  return {
    base_model_type: peft.getBaseModel().constructor.name,
    adapter_model_type: MODEL_TYPES[types[0]?.[1] ?? "TRAINABLE_TOKENS"],
    peft_types: Object.fromEntries(types),
    trainable_params: trainable,
    total_params: all,
    num_adapter_layers: layerStatus(adapters).length,
    enabled: state.enabled,
    active_adapters: state.active,
    merged_adapters: state.merged,
    requires_grad: Object.fromEntries(names.map((name) => [name, adapters.known(name).requiresGrad && state.enabled])),
    available_adapters: names.toSorted(),
    devices: Object.fromEntries(names.map((name) => [name, backend === undefined ? [] : [backend]])),
  };
}
