import type { AdaptableModel } from "./adaptable.ts";
import type { Adapters } from "./adapters.ts";
import type { Sides } from "./effective.ts";
import { AdapterError } from "./errors.ts";
import type { TrainableTokensLayer } from "./layer.ts";
import { tieOf } from "./ties.ts";

interface Overlap {
  readonly adapters: readonly [string, string];
  readonly ids: readonly number[];
  readonly module: string;
}

/** The tokens that an adapter has in a layer, or is to have. */
type IdsOf = (layer: TrainableTokensLayer, name: string) => readonly number[];

/** The modules whose rows an adapter's layer replaces: its own, and those tied to it on the sides where the rows hold. */
function reach(root: AdaptableModel, path: string, sides: Sides): string[] {
  const tie = tieOf(root, path);
  if (!tie || tie.tied.length === 0) return [path];
  const heads = tie.tied.filter((tied) => tied === tie.head);
  const lookups = [path, ...tie.tied.filter((tied) => tied !== tie.head)];
  return [...(sides === "output" ? [] : lookups), ...(sides === "input" ? [] : heads)];
}

/** The first two of the adapters that replace the same row of a module, or all of it, or null; those of `sharing` may share rows. */
export function overlapOf(
  { root, layers, tokenLayers }: Adapters,
  names: readonly string[],
  sharing: readonly string[] = [],
  idsOf: IdsOf = (layer, name) => [...layer.indicesOf(name)],
): Overlap | null {
  for (const [module, layer] of layers()) {
    const [first, second] = layer.exclusive ? names.filter((name) => layer.has(name)) : [];
    if (first !== undefined && second !== undefined) return { adapters: [first, second], ids: [], module };
  }
  const owners = new Map<string, Map<number, string>>();
  for (const [path, layer] of tokenLayers()) {
    for (const name of names.filter((n) => layer.has(n))) {
      for (const module of reach(root, path, layer.sidesOf(name))) {
        const owner = owners.get(module) ?? new Map<number, string>();
        owners.set(module, owner);
        const mayShare = (other: string): boolean => sharing.includes(name) && sharing.includes(other);
        const ids = idsOf(layer, name).filter((id) => {
          const other = owner.get(id);
          return other !== undefined && other !== name && !mayShare(other);
        });
        if (ids.length > 0) return { adapters: [owner.get(ids[0]!)!, name], ids, module };
        for (const id of idsOf(layer, name)) owner.set(id, name);
      }
    }
  }
  return null;
}

/** Adapters whose rows would be in effect together must not share an id on any module. Throws AdapterError OVERLAP. */
export function checkOverlap(
  adapters: Adapters,
  names: readonly string[],
  sharing: readonly string[] = [],
  idsOf?: IdsOf,
): void {
  const found = overlapOf(adapters, names, sharing, idsOf);
  if (!found) return;
  const both = found.adapters.join(" and ");
  const message =
    found.ids.length > 0
      ? `must have different ids, got ${both} sharing ${found.ids.join(", ")} on ${found.module}`
      : `must not both train all of a module, got ${both} training ${found.module}`;
  throw new AdapterError("OVERLAP", `adapters in effect together ${message}`, { ...found });
}
