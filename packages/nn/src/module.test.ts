import { type Tensor, Scope, defaultBackend, ones, tensor } from "@neolog/tensor";
import { describe, expect, test } from "vitest";
import { initWeights } from "./init.ts";
import { Linear, linear } from "./linear.ts";
import { Module } from "./module.ts";
import { nearest } from "./nearest.ts";
import { ModulePathError, replaceModule } from "./replace.ts";
import { rmsNorm } from "./rmsNorm.ts";
import { StateDictError, adoptStateDict, loadStateDict, stateDict } from "./stateDict.ts";

class Pair extends Module {
  readonly layers = [linear(2, 3, true), linear(3, 2)];
  readonly norm = rmsNorm(2, 1e-5);
  readonly rows: Record<string, Tensor> = {};
  readonly #hidden = ones([9]);
  forward(): Tensor {
    return this.#hidden;
  }
}

/** Two modules that share one weight. */
class Tied extends Module {
  readonly first = linear(2, 2);
  readonly second = new Linear(this.first.weight);
  forward(): void {}
}

const KEYS = ["layers.0.weight", "layers.0.bias", "layers.1.weight", "norm.weight"];
const shapesAsTensors = (module: Module): Map<string, Tensor> =>
  new Map([...stateDict(module)].map(([key, t]) => [key, ones(t.shape)]));

describe("Module", () => {
  test("public fields are the keys; what is private or null is none", () => {
    expect([...stateDict(new Pair()).keys()]).toEqual(KEYS);
  });

  test("lists count through, and parents come before children", () => {
    expect([...new Pair().namedModules()].map(([path]) => path)).toEqual(["", "layers.0", "layers.1", "norm"]);
  });

  test("records of tensors are keyed by their names, as adapters need", () => {
    const pair = new Pair();
    pair.rows["default"] = ones([1]);
    expect([...stateDict(pair).keys()]).toEqual(["rows.default", ...KEYS]);
  });

  test("a shared tensor comes once, under its first key", () => {
    expect([...stateDict(new Tied()).keys()]).toEqual(["first.weight"]);
  });

  test("a module is found by its path", () => {
    const pair = new Pair();
    expect(pair.moduleAt("layers.1")).toBe(pair.layers[1]);
    expect(pair.moduleAt("")).toBe(pair);
    expect(pair.moduleAt("layers")).toBeUndefined();
  });
});

describe("replaceModule", () => {
  test.each(["layers.1", "norm"])("puts a module in the place of %s, and the same call takes it out", (path) => {
    const pair = new Pair();
    const before = [...stateDict(pair)];
    const old = pair.moduleAt(path)!;
    const wrapper = replaceModule(pair, path, () => linear(1, 1));
    expect(pair.moduleAt(path)).toBe(wrapper);
    replaceModule(pair, path, () => old);
    expect([...stateDict(pair)]).toEqual(before);
  });

  test("names the path that is most like an unknown one", () => {
    const error = (() => {
      try {
        replaceModule(new Pair(), "layer.1", (old) => old);
      } catch (e) {
        return e;
      }
    })();
    expect(error).toBeInstanceOf(ModulePathError);
    expect((error as Error).message).toBe(
      'replaceModule: a module must be at "layer.1", got none; did you mean "layers.1"?',
    );
  });

  test("the root has no place to be replaced in", () => {
    expect(() => replaceModule(new Pair(), "", (old) => old)).toThrow(ModulePathError);
  });
});

test("nearest prefers the same last component, then few edits", () => {
  const known = ["", "model.embed_tokens", "model.layers.0.self_attn.q_proj", "lm_head"];
  expect(nearest("embed_token", known)[0]).toBe("model.embed_tokens");
  expect(nearest("transformer.q_proj", known)[0]).toBe("model.layers.0.self_attn.q_proj");
  expect(nearest("zzzzzzzz", known)).toEqual([]);
});

describe("state dicts", () => {
  test("loading copies values into the module's own tensors", () => {
    const pair = new Pair();
    const own = stateDict(pair);
    loadStateDict(pair, shapesAsTensors(pair));
    expect(stateDict(pair)).toEqual(own);
    for (const t of own.values()) expect(new Set(t.dataSync())).toEqual(new Set([1]));
  });

  test("adopting puts the tensors themselves in, and frees the old ones", () => {
    const pair = new Pair();
    const old = [...stateDict(pair).values()];
    const state = shapesAsTensors(pair);
    const live = defaultBackend().live;
    adoptStateDict(pair, state);
    expect([...stateDict(pair)]).toEqual([...state]);
    expect(old.every((t) => t.disposed)).toBe(true);
    expect(defaultBackend().live).toBe(live - old.length);
  });

  test.each([loadStateDict, adoptStateDict])("%o reports every key at once and changes nothing", (load) => {
    const pair = new Pair();
    const state = shapesAsTensors(pair);
    state.delete("layers.0.bias");
    state.set("norm.weight", ones([3])).set("layers.2.weight", ones([1]));
    let error: unknown;
    try {
      load(pair, state);
    } catch (e) {
      error = e;
    }
    expect(error).toBeInstanceOf(StateDictError);
    expect(error).toMatchObject({
      missing: ["layers.0.bias"],
      unexpected: ["layers.2.weight"],
      misshapen: ["norm.weight: [2] expected, [3] found"],
      message:
        "loadStateDict: keys must match the module, got 1 missing (layers.0.bias), 1 unexpected (layers.2.weight), " +
        "1 misshapen (norm.weight: [2] expected, [3] found)",
    });
    for (const t of stateDict(pair).values()) expect(new Set(t.dataSync())).toEqual(new Set([0]));
  });
});

describe("weights", () => {
  test("outlive the scope in which their module was made", () => {
    const scope = new Scope();
    const layer = linear(1, 2);
    scope[Symbol.dispose]();
    expect(layer.forward(tensor([1], [1, 1])).shape).toEqual([1, 2]);
  });

  test("start from the seed: matrices normal, biases 0, norms 1", () => {
    const [pair, twin, other] = [new Pair(), new Pair(), new Pair()];
    initWeights(pair, 1, 0.5);
    initWeights(twin, 1, 0.5);
    initWeights(other, 2, 0.5);
    const values = (module: Module, key: string): number[] => [...stateDict(module).get(key)!.dataSync()];
    expect(values(pair, "layers.0.weight")).toEqual(values(twin, "layers.0.weight"));
    expect(values(pair, "layers.0.weight")).not.toEqual(values(other, "layers.0.weight"));
    expect(values(pair, "layers.0.weight")).not.toEqual(values(pair, "layers.1.weight"));
    expect(values(pair, "layers.0.bias")).toEqual([0, 0, 0]);
    expect(values(pair, "norm.weight")).toEqual([1, 1]);
    const wide = linear(100, 100);
    initWeights(wide, 3, 0.5);
    const square = values(wide, "weight").reduce((sum, x) => sum + x * x, 0) / 10_000;
    expect(Math.sqrt(square)).toBeCloseTo(0.5, 1);
  });
});
