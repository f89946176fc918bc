import { PythonFloat, isJsonObject, stringifyPythonJson } from "@neolog/checkpoint";
import type { PreTrainedModel } from "./preTrainedModel.ts";

/** What transformers types as a float alone: it refuses 30 where it wants 30.0. */
const FLOAT_KEYS: ReadonlySet<string> = new Set([
  "attn_logit_softcapping",
  "final_logit_softcapping",
  "init_std",
  "initializer_factor",
  "initializer_range",
  "layer_norm_eps",
  "layer_norm_epsilon",
  "rms_norm_eps",
]);

const stored = new WeakMap<PreTrainedModel, unknown>();

/** Keeps config.json as it was read with `exact`, which tells floats from integers. */
export function keepStoredConfig(model: PreTrainedModel, exact: unknown): void {
  stored.set(model, exact);
}

/** config.json of a model as it is now; numbers that did not change are written as they were. */
export const configText = (model: PreTrainedModel): string =>
  `${stringifyPythonJson(spelledLike(model.config, stored.get(model)))}\n`;

/** `value` with its numbers as `like` has them where they are equal. */
function spelledLike(value: unknown, like: unknown): unknown {
  if (like instanceof PythonFloat) return like.value === value ? like : value;
  if (typeof like === "bigint") return Number(like) === value ? like : value;
  if (Array.isArray(value)) return value.map((x, i) => spelledLike(x, Array.isArray(like) ? like[i] : undefined));
  if (!isJsonObject(value)) return value;
  const entries = Object.entries(value).map(([key, x]) => {
    const spelled = spelledLike(x, isJsonObject(like) ? like[key] : undefined);
    return [key, typeof spelled === "number" && FLOAT_KEYS.has(key) ? new PythonFloat(spelled) : spelled];
  });
  return Object.fromEntries(entries);
}
