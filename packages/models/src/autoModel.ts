import { fromPretrained } from "./pretrained.ts";
import { fromConfig } from "./registry.ts";

/** Picks the architecture by config.json's `model_type`. */
export const AutoModelForCausalLM = { fromPretrained, fromConfig } as const;
