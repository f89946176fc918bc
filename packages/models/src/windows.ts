import * as v from "valibot";
import { ModelConfigError, size } from "./config.ts";

/** Keys of a config that say how far back its layers see. */
export const WINDOW_KEYS = {
  sliding_window: v.nullish(size),
  layer_types: v.nullish(v.array(v.picklist(["full_attention", "sliding_attention"]))),
};

type WindowKeys = v.InferOutput<v.ObjectSchema<typeof WINDOW_KEYS, undefined>>;
type WindowConfig = WindowKeys & { readonly num_hidden_layers: number };

/**
 * How many positions a query of each layer sees, its own included; null for all. Configs without `layer_types` (transformers 4) leave
 * it to the family which layers have the window: `slides`. Throws ModelConfigError.
 */
export function windowsOf(
  { sliding_window, layer_types, num_hidden_layers }: WindowConfig,
  file: string,
  slides: (layer: number) => boolean,
): (number | null)[] {
  if (layer_types && layer_types.length !== num_hidden_layers) {
    const mustHold = `must have one entry for each of the ${num_hidden_layers} layers, found ${layer_types.length}`;
    throw new ModelConfigError(file, "layer_types", mustHold);
  }
  return Array.from({ length: num_hidden_layers }, (_, layer) => {
    if (!(layer_types ? layer_types[layer] === "sliding_attention" : slides(layer))) return null;
    if (sliding_window == null) {
      throw new ModelConfigError(
        file,
        "sliding_window",
        `must be set for layer ${layer}, which has a window, found none`,
      );
    }
    return sliding_window;
  });
}

/** The windows of a family whose layers are all alike. Throws ModelConfigError where `layer_types` says otherwise. */
export function sameWindowsOf(config: WindowConfig, file: string): (number | null)[] {
  const { sliding_window = null, layer_types } = config;
  const slides = sliding_window !== null;
  if (layer_types?.some((type) => (type === "sliding_attention") !== slides)) {
    const mustHold = `must say the same of every layer as "sliding_window" (${sliding_window}): here layers are alike`;
    throw new ModelConfigError(file, "layer_types", mustHold);
  }
  return windowsOf(config, file, () => slides);
}

/** Keys of the families whose later layers may have a window: Qwen. */
export const LATER_WINDOW_KEYS = {
  ...WINDOW_KEYS,
  use_sliding_window: v.optional(v.boolean(), false),
  max_window_layers: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0))),
};

type LaterWindowConfig = WindowConfig & v.InferOutput<v.ObjectSchema<typeof LATER_WINDOW_KEYS, undefined>>;

/** The windows of those families: none unless `use_sliding_window`, by default from layer `max_window_layers` on. Throws ModelConfigError. */
export function laterWindowsOf(config: LaterWindowConfig, file: string): (number | null)[] {
  const { use_sliding_window, max_window_layers, layer_types, sliding_window } = config;
  if (!use_sliding_window) return windowsOf({ ...config, sliding_window: null }, file, () => false);
  if (!layer_types && max_window_layers === undefined) {
    throw new ModelConfigError(file, "max_window_layers", `must be set with "use_sliding_window", found none`);
  }
  return windowsOf(config, file, (layer) => sliding_window !== null && layer >= max_window_layers!);
}
