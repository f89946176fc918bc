import { CheckpointError } from "@neolog/checkpoint";
import { stateDict } from "@neolog/nn";
import { type Tensor, assign, formatShape, sameShape } from "@neolog/tensor";
import { AdapterError } from "./errors.ts";
import { PREFIX, ROWS, listedModules, normalizeKey, withoutAdapterName } from "./keys.ts";
import type { PeftModel } from "./model.ts";

/** The tensors of an adapter under the keys of its file; the tensors are the model's own. Throws AdapterError UNKNOWN. */
export function getPeftModelStateDict(peft: PeftModel, { adapterName = "default" } = {}): Map<string, Tensor> {
  peft.requiresGradOf(adapterName); // refuses unknown names
  const state = new Map<string, Tensor>();
  for (const [path, layer] of peft.layers()) {
    if (!layer.has(adapterName)) continue;
    for (const module of listedModules(peft, path))
      state.set(PREFIX + module + ROWS, layer.trainable_tokens_delta[adapterName]!);
  }
  return state;
}

/**
 * Copies rows into an adapter, by the keys of its file, with PEFT's prefix or without. Of tied copies one is enough and the first
 * counts. Throws AdapterError UNKNOWN, CheckpointError MISSING, UNEXPECTED or SHAPE; then nothing changed.
 */
export function setPeftModelStateDict(
  peft: PeftModel,
  state: ReadonlyMap<string, Tensor>,
  { adapterName = "default" } = {},
): void {
  const own = getPeftModelStateDict(peft, { adapterName });
  const given = new Map([...state].map(([key, t]) => [PREFIX + (normalizeKey(key) ?? withoutAdapterName(key)), t]));
  const unexpected = [...given.keys()].filter((key) => !own.has(key));
  const sources = new Map<Tensor, Tensor>();
  for (const [key, rows] of own) {
    const t = given.get(key);
    if (!t) continue;
    checkShape(key, rows, t);
    if (!sources.has(rows)) sources.set(rows, t);
  }
  const missing = [...own].filter(([, rows]) => !sources.has(rows)).map(([key]) => key);
  checkKeys(missing, unexpected);
  for (const [rows, t] of sources) assign(rows, t);
}

/** The base's tensors under the keys that they have without adapters; the tensors are the model's own. */
export function getBaseModelStateDict(peft: PeftModel): Map<string, Tensor> {
  const entries = [...stateDict(peft.getBaseModel())].filter(([key]) => !key.includes(`${ROWS}.`));
  return new Map(entries.map(([key, t]) => [key.replace(".base_layer.", "."), t]));
}

/** Copies values into the base, by its own keys. Throws AdapterError MERGED or CheckpointError; then nothing changed. */
export function setBaseModelStateDict(peft: PeftModel, state: ReadonlyMap<string, Tensor>): void {
  if (peft.mergedAdapters.length > 0) {
    throw new AdapterError(
      "MERGED",
      `base state dict: nothing may be merged while the base is replaced, got ${peft.mergedAdapters.join(", ")}; unmerge first`,
      { merged: peft.mergedAdapters },
    );
  }
  const own = getBaseModelStateDict(peft);
  checkKeys(
    [...own.keys()].filter((key) => !state.has(key)),
    [...state.keys()].filter((key) => !own.has(key)),
  );
  for (const [key, t] of own) checkShape(key, t, state.get(key)!);
  for (const [key, t] of own) assign(t, state.get(key)!);
  for (const layer of peft.layers().values()) layer.rereadOriginals();
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
