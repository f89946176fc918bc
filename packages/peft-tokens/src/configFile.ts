import { nearest } from "@neolog/nn";
import { ConfigError } from "./errors.ts";
import type { OnWarning } from "./warnings.ts";

/** The object of an adapter_config.json. */
export type ConfigFile = Readonly<Record<string, unknown>>;

/** Throws ConfigError UNKNOWN_KEY, with the near names, for a key that is not one of `keys`. */
export function checkOptionKeys(where: string, options: object, keys: readonly string[]): void {
  const stranger = Object.keys(options).find((key) => !keys.includes(key));
  if (stranger === undefined) return;
  const near = nearest(stranger, keys);
  const hint = near.length > 0 ? `; did you mean "${near[0]}"?` : "";
  throw new ConfigError("UNKNOWN_KEY", `${where}: keys must be ${keys.join(", ")}, got "${stranger}"${hint}`, {
    key: stranger,
    near,
  });
}

/** What a file says of `keys`, without `peft_type`; a warning names the keys that are not among them. */
export function optionsOf(file: ConfigFile, keys: readonly string[], onWarning: OnWarning): Record<string, unknown> {
  const entries = Object.entries(file);
  const unknown = entries.filter(([key]) => !keys.includes(key)).map(([key]) => key);
  if (unknown.length > 0) {
    const message = `adapter_config.json: ${unknown.join(", ")} mean nothing here; kept and written back`;
    onWarning({ code: "UNKNOWN_KEYS", message });
  }
  return Object.fromEntries(entries.filter(([key]) => keys.includes(key) && key !== "peft_type"));
}

/** What is written: for a config from a file its own keys, known or not; else `own`, without an absent version. */
export function toFile(own: Record<string, unknown>, file: ConfigFile | null): Record<string, unknown> {
  if (file === null) {
    const { peft_version, ...rest } = own;
    return peft_version === null ? rest : own;
  }
  return Object.fromEntries(Object.entries(file).map(([key, x]) => [key, Object.hasOwn(own, key) ? own[key] : x]));
}

export function checkBoolean(key: string, value: unknown): void {
  if (typeof value === "boolean") return;
  throw new ConfigError("ARGUMENT", `${key}: must be true or false, got ${JSON.stringify(value)}`, { [key]: value });
}

/** Throws ConfigError ARGUMENT where names of modules are neither null, a name, nor a list of names. */
export function checkNames(key: string, value: unknown): void {
  const isNames = Array.isArray(value) && value.every((name) => typeof name === "string");
  if (value === null || typeof value === "string" || isNames) return;
  const message = `${key}: must be null, a name or a list of names, got ${JSON.stringify(value)}`;
  throw new ConfigError("ARGUMENT", message, { [key]: value });
}
