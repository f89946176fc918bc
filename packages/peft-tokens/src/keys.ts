import type { PeftModel } from "./model.ts";

/** What PEFT puts before the base model's names. */
export const PREFIX = "base_model.model.";
export const ROWS = ".trainable_tokens_delta";
export const TABLE = ".base_layer.weight";

/** The modules whose rows a file lists for a target: itself and, for an embedding, what is tied to it. */
export function listedModules(peft: PeftModel, target: string): string[] {
  const { embeddingPath, tiedPaths } = peft.getBaseModel();
  return target === embeddingPath ? [target, ...tiedPaths] : [target];
}

/** A key of a file as the name inside the base model, without an adapter's name at the end; mapped by the first pattern that matches. */
export function normalizeKey(key: string, keyMapping: Readonly<Record<string, string>>): string {
  const inner = key.startsWith(PREFIX) ? key.slice(PREFIX.length) : key;
  for (const [pattern, replacement] of Object.entries(keyMapping)) {
    const expression = new RegExp(pattern);
    if (expression.test(inner)) return withoutAdapterName(inner.replace(expression, replacement));
  }
  return key.startsWith(PREFIX) ? withoutAdapterName(inner) : key;
}

/** `….trainable_tokens_delta.default` → `….trainable_tokens_delta` */
const withoutAdapterName = (key: string): string => key.replace(/(\.trainable_tokens_delta)\.[^.]+$/, "$1");
