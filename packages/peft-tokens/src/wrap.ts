import { Conv1D, Embedding, Linear, type Module, replaceModule } from "@neolog/nn";
import type { Tensor } from "@neolog/tensor";
import type { AdaptableModel } from "./adaptable.ts";
import { AdapterLayer } from "./adapterLayer.ts";
import { tieThrough } from "./ties.ts";
import { TrainableTokensWrapper } from "./tokenWrapper.ts";

/** Path, as the unadapted model names it, → layer; in the order of the tree. */
export function adapterLayers(root: Module): Map<string, AdapterLayer> {
  const layers = new Map<string, AdapterLayer>();
  for (const [path, module] of root.namedModules()) {
    const layer = layerIn(module);
    if (layer && ![...layers.values()].includes(layer)) layers.set(path, layer);
  }
  return layers;
}

const layerIn = (module: Module | undefined): AdapterLayer | null => {
  if (module instanceof TrainableTokensWrapper) return module.token_adapter;
  return module instanceof AdapterLayer ? module : null;
};

/** The layer around the module at a path, or null where it is plain. */
export const layerAt = (root: Module, path: string): AdapterLayer | null => layerIn(root.moduleAt(path));

/** Names of the tree as the unadapted model has them. */
export function moduleNames(root: Module): string[] {
  const wrapped = [...adapterLayers(root).keys()];
  return [...root.namedModules()]
    .map(([name]) => name)
    .filter((name) => name !== "" && !wrapped.some((path) => name.startsWith(`${path}.`)));
}

/** The module that the unadapted model has at a path. */
export const plainAt = (root: Module, path: string): Module | undefined =>
  layerAt(root, path)?.base ?? root.moduleAt(path);

/** Takes the layer at a path away. */
export function unwrapAt(root: Module, path: string): void {
  const layer = layerAt(root, path);
  if (layer) replaceModule(root, path, () => layer.base);
}

/** The weight that a module reads: its own, or that of the embedding to which it is tied. */
export function weightAt(root: AdaptableModel, path: string): Tensor {
  const module = plainAt(root, path);
  if (module instanceof Embedding || module instanceof Linear || module instanceof Conv1D) return module.weight;
  return weightAt(root, tieThrough(root, path)!.embedding);
}
