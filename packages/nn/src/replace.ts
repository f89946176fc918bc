import { Module, join } from "./module.ts";
import { nearest } from "./nearest.ts";

/** No module at the path that was asked for. */
export class ModulePathError extends Error {
  override readonly name = "ModulePathError";
  readonly path: string;
  readonly nearest: readonly string[];

  constructor(op: string, path: string, known: readonly string[]) {
    const similar = nearest(path, known);
    super(`${op}: a module must be at "${path}", got none${similar.length ? `; did you mean "${similar[0]}"?` : ""}`);
    this.path = path;
    this.nearest = similar;
  }
}

/** Puts `swap(old)` in the place of the module at `path` and returns it; the tree above is untouched. */
export function replaceModule<M extends Module>(root: Module, path: string, swap: (old: Module) => M): M {
  const old = root.moduleAt(path);
  const parent = parentOf(root, path);
  if (!old || !parent) {
    throw new ModulePathError(
      "replaceModule",
      path,
      [...root.namedModules()].map(([name]) => name),
    );
  }
  const replacement = swap(old);
  parent.fields[parent.key] = replacement;
  return replacement;
}

/** The object and key that hold the module at `path`: a module's field, or a place in a list of modules. */
function parentOf(root: Module, path: string): { fields: Record<string, unknown>; key: string } | undefined {
  for (const [prefix, module] of root.namedModules()) {
    for (const [key] of module.namedChildren()) {
      if (join(prefix, key) !== path) continue;
      const [field, index] = key.split(".") as [string, string | undefined];
      const fields = module as unknown as Record<string, unknown>;
      return index === undefined ? { fields, key } : { fields: fields[field] as Record<string, unknown>, key: index };
    }
  }
  return undefined;
}
