import { CheckpointError } from "@neolog/checkpoint";
import { type Module, stateDict } from "@neolog/nn";
import { type Tensor, assign, formatShape, sameShape } from "@neolog/tensor";
import { AdapterError } from "./errors.ts";
import { PREFIX, fileTensors, normalizeKey, withoutAdapterName } from "./keys.ts";
import { type AnyPeftModel, PeftModel } from "./model.ts";
import { adaptersOf } from "./inject.ts";

/** A PeftModel, or a module tree with injected adapters. */
type Adapted = AnyPeftModel | Module;
const prefixOf = (model: Adapted): string => (model instanceof PeftModel ? PREFIX : "");

/**
 * The tensors of an adapter under the keys of its file (without PEFT's prefix for a bare injected model); the tensors are the
 * model's own. Throws AdapterError UNKNOWN.
 */
export function getPeftModelStateDict(model: Adapted, { adapterName = "default" } = {}): Map<string, Tensor> {
  const prefix = prefixOf(model);
  return new Map([...fileTensors(adaptersOf(model), adapterName)].map(([key, t]) => [prefix + key, t]));
}

/**
 * Copies values into an adapter, by the keys of its file, with PEFT's prefix or without. Of tied copies one is enough and the first
 * counts. Throws AdapterError UNKNOWN, CheckpointError MISSING, UNEXPECTED or SHAPE; then nothing changed.
 */
export function setPeftModelStateDict(
  model: Adapted,
  state: ReadonlyMap<string, Tensor>,
  { adapterName = "default" } = {},
): void {
  const own = fileTensors(adaptersOf(model), adapterName);
  const given = new Map([...state].map(([key, t]) => [normalizeKey(key) ?? withoutAdapterName(key), t]));
  const unexpected = [...given.keys()].filter((key) => !own.has(key)).map((key) => PREFIX + key);
  const sources = new Map<Tensor, Tensor>();
  for (const [key, target] of own) {
    const t = given.get(key);
    if (!t) continue;
    checkShape(PREFIX + key, target, t);
    if (!sources.has(target)) sources.set(target, t);
  }
  const missing = [...own].filter(([, target]) => !sources.has(target)).map(([key]) => PREFIX + key);
  checkKeys(missing, unexpected);
  for (const [target, t] of sources) assign(target, t);
}

/** The base's tensors under the keys that they have without adapters; the tensors are the model's own. */
export function getBaseModelStateDict(model: Adapted): Map<string, Tensor> {
  const { root, layers } = adaptersOf(model);
  const adapted = new Set(
    [...layers().values()].flatMap((layer) => layer.adapters.flatMap((n) => [...layer.tensorsOf(n).values()])),
  );
  const entries = [...stateDict(root)].filter(([, t]) => !adapted.has(t));
  return new Map(
    entries.map(([key, t]) => [key.replace(/(\.token_adapter)?\.(base_layer|original_module)\./, "."), t]),
  );
}

/** Copies values into the base, by its own keys. Throws AdapterError MERGED or CheckpointError; then nothing changed. */
export function setBaseModelStateDict(model: Adapted, state: ReadonlyMap<string, Tensor>): void {
  const adapters = adaptersOf(model);
  const { merged } = adapters.state;
  if (merged.length > 0) {
    throw new AdapterError(
      "MERGED",
      `base state dict: nothing may be merged while the base is replaced, got ${merged.join(", ")}; unmerge first`,
      { merged },
    );
  }
  const own = getBaseModelStateDict(model);
  checkKeys(
    [...own.keys()].filter((key) => !state.has(key)),
    [...state.keys()].filter((key) => !own.has(key)),
  );
  for (const [key, t] of own) checkShape(key, t, state.get(key)!);
  for (const [key, t] of own) assign(t, state.get(key)!);
  for (const layer of adapters.layers().values()) layer.rereadBase();
}

function checkKeys(missing: readonly string[], unexpected: readonly string[]): void {
  if (missing.length > 0)
    throw new CheckpointError("MISSING", `state dict: must hold ${missing.join(", ")}, found none`, { missing });
  if (unexpected.length === 0) return;
  throw new CheckpointError("UNEXPECTED", `state dict: must hold no other key, found ${unexpected.join(", ")}`, {
    unexpected,
  });
}

function checkShape(key: string, { shape }: Tensor, given: Tensor): void {
  if (sameShape(shape, given.shape)) return;
  throw new CheckpointError(
    "SHAPE",
    `state dict: ${key} must be ${formatShape(shape)}, found ${formatShape(given.shape)}`,
    { key },
  );
}
