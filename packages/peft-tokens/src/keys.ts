import { ConfigError } from "./errors.ts";
import type { PeftModel } from "./model.ts";

export const CONFIG_FILE = "adapter_config.json";
export const TENSOR_FILE = "adapter_model.safetensors";
/** What PEFT puts before the base model's names. */
export const PREFIX = "base_model.model.";
export const ROWS = ".trainable_tokens_delta";
export const TABLE = ".base_layer.weight";

/** The modules whose rows a file lists for a target: itself and, for an embedding, what is tied to it. */
export function listedModules(peft: PeftModel, target: string): string[] {
  const { embeddingPath, tiedPaths } = peft.getBaseModel();
  return target === embeddingPath ? [target, ...tiedPaths] : [target];
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

/** `….trainable_tokens_delta.default` → `….trainable_tokens_delta` */
export const withoutAdapterName = (key: string): string => key.replace(/(\.trainable_tokens_delta)\.[^.]+$/, "$1");

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
