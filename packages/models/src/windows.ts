import * as v from "valibot";
import { ModelConfigError, size } from "./config.ts";

/** Keys of a config that say how far back its layers see. */
export const WINDOW_KEYS = {
  sliding_window: v.nullish(size),
  layer_types: v.nullish(v.array(v.picklist(["full_attention", "sliding_attention"]))),
};

type WindowKeys = v.InferOutput<v.ObjectSchema<typeof WINDOW_KEYS, undefined>>;

/**
 * How many positions a query of each layer sees, its own included; null for all. Configs without `layer_types` (transformers 4) leave
 * it to the family which layers have the window: `slides`. Throws ModelConfigError.
 */
export function windowsOf(
  { sliding_window, layer_types, num_hidden_layers }: WindowKeys & { readonly num_hidden_layers: number },
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
