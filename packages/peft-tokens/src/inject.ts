import type { Module } from "@neolog/nn";
import { Scope, type Tensor, cast, isStorageDType, persist, untracked } from "@neolog/tensor";
import type { AdaptableModel } from "./adaptable.ts";
import { Adapters, type SetAdapterOptions } from "./adapters.ts";
import { AdapterError } from "./errors.ts";
import { applyRequiresGrad, setRequiresGradOf } from "./flags.ts";
import { PeftModel, type PeftOptions } from "./model.ts";
import type { PeftConfig } from "./registry.ts";
import { adapterLayers } from "./wrap.ts";

/** A module tree with injected adapters and no PeftModel around it → what keeps them. */
const INJECTED = new WeakMap<Module, Adapters>();

/** The adapters of a PeftModel, or those that were injected into a model. Throws AdapterError UNKNOWN where there are none. */
export function adaptersOf(model: Module): Adapters {
  const adapters = model instanceof PeftModel ? model.adapters : INJECTED.get(model);
  if (adapters) return adapters;
  throw new AdapterError("UNKNOWN", `the model must have injected adapters, got a ${model.constructor.name} without`);
}

/**
 * Puts an adapter into a module tree without a PeftModel around it: active and trainable, the base frozen; a further one becomes
 * active in the place of the first. Returns the model. On failure it is as it was.
 */
export function injectAdapterInModel<M extends AdaptableModel>(
  config: PeftConfig,
  model: M,
  { adapterName = "default", onWarning, ...options }: PeftOptions = {},
): M {
  const there = INJECTED.get(model);
  const adapters = there && adapterLayers(model).size > 0 ? there : new Adapters(model, onWarning);
  adapters.add(adapterName, config, options);
  const base = new Set(adapters.layersOf(adapterName).flatMap((layer) => [...layer.tensorsOf(adapterName).values()]));
  if (adapters !== there) for (const p of model.parameters()) if (!base.has(p)) p.requiresGrad = false;
  INJECTED.set(model, adapters);
  adapters.set([adapterName], { inferenceMode: config.inference_mode });
  return model;
}

/** PeftModel.setAdapter on a bare injected model too. */
export function setAdapter(model: Module, names: string | readonly string[], options: SetAdapterOptions = {}): void {
  adaptersOf(model).set([names].flat(), options);
}
/** PeftModel.deleteAdapter on a bare injected model too. */
export const deleteAdapter = (model: Module, name: string): void => adaptersOf(model).delete(name);
/** PeftModel.setRequiresGrad on a bare injected model too. */
export const setRequiresGrad = (model: Module, names: string | readonly string[], flag = true): void =>
  setRequiresGradOf(adaptersOf(model), names, flag);

/** Turns an adapter's bfloat16 and float16 tensors into float32, so that it trains as over a float32 base. */
export function castAdapterDtype(model: Module, name: string): void {
  const adapters = adaptersOf(model);
  adapters.known(name);
  const converted = new Map<Tensor, Tensor>(); // rows that two layers share stay shared
  const to = (t: Tensor): Tensor => {
    if (!isStorageDType(t.dtype)) return t;
    const float = converted.get(t) ?? untracked(() => widened(t));
    converted.set(t, float);
    return float;
  };
  for (const layer of adapters.layersOf(name)) layer.convert(name, to);
  for (const t of converted.keys()) t.dispose();
  applyRequiresGrad(adapters);
}

function widened(t: Tensor): Tensor {
  using _temporary = new Scope();
  return persist(cast(t, "float32"));
}
