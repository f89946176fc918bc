import type { FolderSource } from "@neolog/checkpoint";
import type { Adapters } from "./adapters.ts";
import { type EditOptions, checkUnmerged } from "./editTokens.ts";
import { ConfigError } from "./errors.ts";
import { applyRequiresGrad } from "./flags.ts";
import { type LoadOptions, loadAdapterFiles } from "./load.ts";
import type { LoadReport } from "./loadChecks.ts";
import { checkOverlap } from "./overlap.ts";

export type HotswapOptions = Omit<LoadOptions, "isTrainable"> & EditOptions;

/**
 * Puts an adapter folder in the place of an adapter: ids, rows and LoRA weights, also of other numbers and ranks; its modules must be
 * the same. It stays active or not, frozen or not; its optimizer state starts anew. A generation that runs keeps what it began with.
 * On failure the old one stays. Throws AdapterError, ConfigError, TargetError or CheckpointError.
 */
export async function hotswapAdapter(
  adapters: Adapters,
  source: FolderSource,
  name: string,
  { optimizer, ...options }: HotswapOptions = {},
): Promise<LoadReport> {
  adapters.known(name);
  checkUnmerged(adapters, "hotswapAdapter", name);
  const incoming = freeName(adapters, name);
  const report = await loadAdapterFiles(adapters, source, incoming, options);
  try {
    adapters.known(name); // it may be gone or merged since
    checkUnmerged(adapters, "hotswapAdapter", name);
    checkSameModules(adapters, name, incoming);
    const { chosen, active, overlap } = adapters.state;
    if (chosen.includes(name)) {
      const renamed = (names: readonly string[]): string[] => names.map((n) => (n === name ? incoming : n));
      checkOverlap(adapters, renamed(chosen), overlap === "error" ? [] : renamed(active));
    }
  } catch (error) {
    adapters.detach(incoming);
    adapters.entries.delete(incoming);
    throw error;
  }
  for (const layer of adapters.layersOf(incoming)) {
    const fresh = layer.tensorsOf(incoming);
    for (const [key, old] of layer.tensorsOf(name)) optimizer?.replaceParameter(old, fresh.get(key)!);
    layer.rename(incoming, name);
  }
  adapters.known(name).config = adapters.known(incoming).config;
  adapters.entries.delete(incoming);
  applyRequiresGrad(adapters);
  return report;
}

function freeName({ entries }: Adapters, name: string): string {
  let free = `${name} (incoming)`;
  while (entries.has(free)) free += "'";
  return free;
}

function checkSameModules(adapters: Adapters, name: string, incoming: string): void {
  const having = (adapter: string): string[] =>
    [...adapters.layers()].flatMap(([path, layer]) => (layer.has(adapter) ? [path] : []));
  const [old, fresh] = [having(name), having(incoming)];
  if (old.join() === fresh.join()) return;
  throw new ConfigError(
    "ARGUMENT",
    `hotswapAdapter: target modules must stay the same, got ${fresh.join(", ")} where ${name} has ${old.join(", ")}`,
    { name, expected: old, found: fresh },
  );
}
