import { CheckpointError } from "@neolog/checkpoint";
import { type Tensor, assign, formatShape, sameShape } from "@neolog/tensor";
import { PREFIX, ROWS, listedModules, normalizeKey } from "./keys.ts";
import type { PeftModel } from "./model.ts";

/** The tensors of an adapter under the keys of its file; the tensors are the model's own. */
export function getPeftModelStateDict(peft: PeftModel, { adapterName = "default" } = {}): Map<string, Tensor> {
  const state = new Map<string, Tensor>();
  for (const [path, layer] of peft.layers()) {
    if (!layer.has(adapterName)) continue;
    for (const module of listedModules(peft, path))
      state.set(PREFIX + module + ROWS, layer.trainable_tokens_delta[adapterName]!);
  }
  return state;
}

/** Copies rows into an adapter, by the keys of its file. Throws CheckpointError MISSING, UNEXPECTED or SHAPE; then nothing changed. */
export function setPeftModelStateDict(
  peft: PeftModel,
  state: ReadonlyMap<string, Tensor>,
  { adapterName = "default" } = {},
): void {
  const own = getPeftModelStateDict(peft, { adapterName });
  const given = new Map([...state].map(([key, t]) => [PREFIX + normalizeKey(key, {}), t]));
  const missing = [...own.keys()].filter((key) => !given.has(key));
  const unexpected = [...given.keys()].filter((key) => !own.has(key));
  if (missing.length > 0)
    throw new CheckpointError("MISSING", `state dict: must hold ${missing.join(", ")}, found none`, { missing });
  if (unexpected.length > 0)
    throw new CheckpointError("UNEXPECTED", `state dict: must hold no other key, found ${unexpected.join(", ")}`, {
      unexpected,
    });
  for (const [key, t] of own) {
    const { shape } = given.get(key)!;
    if (!sameShape(shape, t.shape)) {
      throw new CheckpointError(
        "SHAPE",
        `state dict: ${key} must be ${formatShape(t.shape)}, found ${formatShape(shape)}`,
        { key },
      );
    }
  }
  for (const [key, t] of own) assign(t, given.get(key)!);
}
