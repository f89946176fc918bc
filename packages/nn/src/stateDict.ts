import { type Tensor, assign, formatShape, sameShape } from "@neolog/tensor";
import { type Module, join } from "./module.ts";

/** A state dict does not fit the module: every missing, unexpected and misshapen key at once. */
export class StateDictError extends Error {
  override readonly name = "StateDictError";
  readonly missing: readonly string[];
  readonly unexpected: readonly string[];
  readonly misshapen: readonly string[];

  constructor(where: string, missing: readonly string[], unexpected: readonly string[], misshapen: readonly string[]) {
    const parts = [
      ["missing", missing],
      ["unexpected", unexpected],
      ["misshapen", misshapen],
    ] as const;
    const found = parts
      .filter(([, keys]) => keys.length > 0)
      .map(([what, keys]) => `${keys.length} ${what} (${excerpt(keys)})`);
    super(`${where}: keys must match the module, got ${found.join(", ")}`);
    this.missing = missing;
    this.unexpected = unexpected;
    this.misshapen = misshapen;
  }
}

const excerpt = (keys: readonly string[]): string =>
  keys.length > 4 ? `${keys.slice(0, 4).join(", ")} and ${keys.length - 4} more` : keys.join(", ");

/** Every tensor of the module under its checkpoint key; the tensors are the module's own. */
export const stateDict = (module: Module): Map<string, Tensor> => new Map(module.namedParameters());

/** Compares keys and shapes with the module. Throws StateDictError, which begins with `where`; changes nothing. */
export function checkStateDict(
  module: Module,
  shapes: ReadonlyMap<string, readonly number[]>,
  where = "loadStateDict",
): void {
  const own = stateDict(module);
  const missing = [...own.keys()].filter((key) => !shapes.has(key));
  const unexpected = [...shapes.keys()].filter((key) => !own.has(key));
  const misshapen = [...own].flatMap(([key, t]) => {
    const shape = shapes.get(key);
    return shape && !sameShape(shape, t.shape)
      ? [`${key}: ${formatShape(t.shape)} expected, ${formatShape(shape)} found`]
      : [];
  });
  if (missing.length + unexpected.length + misshapen.length > 0)
    throw new StateDictError(where, missing, unexpected, misshapen);
}

/** Copies the values into the module's tensors. Strict: throws StateDictError before anything changes. */
export function loadStateDict(module: Module, state: ReadonlyMap<string, Tensor>): void {
  checkStateDict(module, shapesOf(state));
  for (const [key, t] of stateDict(module)) assign(t, state.get(key)!);
}

/**
 * Puts the given tensors themselves, in their own dtypes, in the place of the module's, which are disposed.
 * Strict: throws StateDictError before anything changes.
 */
export function adoptStateDict(module: Module, state: ReadonlyMap<string, Tensor>): void {
  checkStateDict(module, shapesOf(state));
  for (const [path, owner] of module.namedModules()) {
    for (const [field, blank] of owner.ownTensors()) {
      const t = state.get(join(path, field))!;
      (owner as unknown as Record<string, Tensor>)[field] = t;
      blank.dispose();
    }
  }
}

const shapesOf = (state: ReadonlyMap<string, Tensor>): Map<string, readonly number[]> =>
  new Map([...state].map(([key, t]) => [key, t.shape]));
