import type { Tensor } from "@neolog/tensor";
import type { Adapters } from "./adapters.ts";
import { ConfigError } from "./errors.ts";
import { tiedTo } from "./ties.ts";
import { layerAt } from "./wrap.ts";

export const CONFIG_FILE = "adapter_config.json";
export const TENSOR_FILE = "adapter_model.safetensors";
/** What PEFT puts before the base model's names. */
export const PREFIX = "base_model.model.";
/** What a table is called where rows are called this. */
export const tableKey = (rows: string): string => rows.replace(/trainable_tokens_delta$/, "base_layer.weight");

/** An adapter's tensors by their names in the base model, as its file has them: rows alone once for every module that reads them. */
export function fileTensors(adapters: Adapters, name: string): Map<string, Tensor> {
  const { config, biases } = adapters.known(name);
  const tensors = new Map<string, Tensor>();
  for (const [path, t] of biases ?? []) tensors.set(`${path}.${layerAt(adapters.root, path)?.baseKey ?? ""}bias`, t);
  for (const [path, layer] of adapters.layers()) {
    const copies = config.peft_type === "TRAINABLE_TOKENS" ? tiedTo(adapters.root, path) : [];
    for (const [suffix, t] of layer.tensorsOf(name)) {
      for (const module of [path, ...copies]) tensors.set(`${module}.${suffix}`, t);
    }
  }
  return tensors;
}

/**
 * A key of a file as the name inside the base model, without an adapter's name at the end; mapped by the first pattern that
 * matches. A key without PEFT's prefix that no pattern matches stays foreign: null. Throws ConfigError REGEX.
 */
export function normalizeKey(key: string, keyMapping: Readonly<Record<string, string>> = {}): string | null {
  const inner = key.startsWith(PREFIX) ? key.slice(PREFIX.length) : key;
  for (const [pattern, replacement] of Object.entries(keyMapping)) {
    const expression = expressionOf(pattern);
    if (expression.test(inner)) return withoutAdapterName(inner.replace(expression, replacement));
  }
  return key.startsWith(PREFIX) ? withoutAdapterName(inner) : null;
}

/** `….trainable_tokens_delta.default` → `….trainable_tokens_delta`, `….lora_A.default.weight` → `….lora_A.weight` */
export const withoutAdapterName = (key: string): string =>
  key
    .replace(/(\.(?:trainable_tokens_delta|lora_embedding_[AB]))\.[^.]+$/, "$1")
    .replace(/(\.lora_[AB])\.[^.]+\.weight$/, "$1.weight");

function expressionOf(pattern: string): RegExp {
  try {
    return new RegExp(pattern);
  } catch (error) {
    throw new ConfigError(
      "REGEX",
      `keyMapping: must hold regular expressions, got ${pattern} (${(error as Error).message})`,
      {
        pattern,
      },
    );
  }
}
