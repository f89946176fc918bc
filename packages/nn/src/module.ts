import { Tensor } from "@neolog/tensor";

/** A node of the model tree. Its public fields are its checkpoint keys; everything that is not a key is `#private` or a method. */
export abstract class Module {
  abstract forward(...args: never[]): unknown;

  /** Modules in public fields; lists of modules count through `layers.0`, records through their keys, `lora_A.default`. */
  *namedChildren(): Generator<[string, Module]> {
    for (const [key, value] of Object.entries(this)) {
      if (value instanceof Module) yield [key, value];
      else if (Array.isArray(value)) {
        for (const [i, item] of value.entries()) if (item instanceof Module) yield [`${key}.${i}`, item];
      } else if (isRecord(value)) {
        for (const [name, item] of Object.entries(value)) if (item instanceof Module) yield [`${key}.${name}`, item];
      }
    }
  }

  /** This module (path "") and all below it, parents first. */
  *namedModules(prefix = ""): Generator<[string, Module]> {
    yield [prefix, this];
    for (const [key, child] of this.namedChildren()) yield* child.namedModules(join(prefix, key));
  }

  /** Every tensor in the tree under its checkpoint key; a tensor that two modules share comes once, under its first key. */
  *namedParameters(): Generator<[string, Tensor]> {
    const seen = new Set<Tensor>();
    for (const [path, module] of this.namedModules()) {
      for (const [key, t] of module.ownTensors()) {
        if (seen.has(t)) continue;
        seen.add(t);
        yield [join(path, key), t];
      }
    }
  }

  /** The tensors in this module's own fields; records of tensors count through their keys. */
  *ownTensors(): Generator<[string, Tensor]> {
    for (const [key, value] of Object.entries(this)) {
      if (value instanceof Tensor) yield [key, value];
      else if (isRecord(value)) {
        for (const [name, item] of Object.entries(value)) if (item instanceof Tensor) yield [`${key}.${name}`, item];
      }
    }
  }

  /** What a parameter of one axis starts as: weights of norms at 1, biases at 0. */
  initialValue(key: string): number {
    return key.endsWith("weight") ? 1 : 0;
  }

  parameters(): Tensor[] {
    return [...this.namedParameters()].map(([, t]) => t);
  }

  /** The module at a dotted path, or undefined. */
  moduleAt(path: string): Module | undefined {
    for (const [name, module] of this.namedModules()) if (name === path) return module;
    return undefined;
  }
}

export const join = (prefix: string, key: string): string => (prefix ? `${prefix}.${key}` : key);

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype;
