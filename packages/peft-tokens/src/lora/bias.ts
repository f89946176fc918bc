import { Tensor } from "@neolog/tensor";
import type { Adapters } from "../adapters.ts";
import type { Placement } from "../registry.ts";
import { layerAt, moduleNames, plainAt } from "../wrap.ts";
import type { LoraConfig } from "./config.ts";

interface Parts {
  readonly targets: readonly string[];
  readonly tokens: readonly string[];
  readonly full: readonly string[];
}

/** The base's own biases that an adapter trains, as `bias` says: places in its file, and tensors by the paths of their modules. */
export function biasPlacements(
  { root }: Adapters,
  { bias }: LoraConfig,
  { targets, tokens, full }: Parts,
): { placements: Placement[]; tensors: Map<string, Tensor> } {
  const paths = bias === "none" ? [] : bias === "all" ? moduleNames(root) : targets;
  const tensors = new Map<string, Tensor>();
  for (const path of paths) {
    const { bias: own } = plainAt(root, path) as { bias?: unknown }; // a tied head's own, too
    if (own instanceof Tensor && !full.includes(path)) tensors.set(path, own);
  }
  const baseKey = (path: string): string => {
    if (targets.includes(path)) return "base_layer.";
    return tokens.includes(path) ? "token_adapter.base_layer." : (layerAt(root, path)?.baseKey ?? "");
  };
  const placements = [...tensors].map(([path, t]) => ({
    path,
    tensors: new Map([[`${baseKey(path)}bias`, t.shape]]),
    attach: () => {},
  }));
  return { placements, tensors };
}
