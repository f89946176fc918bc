import { readFileSync } from "node:fs";
import { Linear, Module } from "@neolog/nn";
import { zeros } from "@neolog/tensor";
import { describe, expect, test } from "vitest";
import { type AdaptableModel, type LoraOptions, LoraConfig, getPeftModel } from "../index.ts";
import { pythonPattern } from "../targets.ts";
import { caught, listener, makeBase } from "../testing.ts";
import { DEFAULT_TARGETS, byPattern, loraTargets } from "./targets.ts";

const ATTENTION = "model.layers.0.self_attn";

/** The modules that LoRA wraps in a tiny Llama of two layers, and the codes of the warnings. */
function wrapped(options: LoraOptions, name = "llama"): { names: string[]; codes: string[] } {
  const { codes, onWarning } = listener();
  const peft = getPeftModel(makeBase(name), new LoraConfig(options), { onWarning });
  return { names: peft.getLayerStatus().map((status) => status.name), codes };
}

describe("LoRA's targets", () => {
  test("null is what the model type usually adapts, and is saved by name", () => {
    expect(wrapped({}).names).toEqual([`${ATTENTION}.q_proj`, `${ATTENTION}.v_proj`]);
    const peft = getPeftModel(makeBase("gpt2"), new LoraConfig({ fan_in_fan_out: true }));
    expect(peft.peftConfig["default"]!.target_modules).toEqual(["c_attn"]);
    expect(DEFAULT_TARGETS["t5"]).toEqual(["q", "v"]);
  });

  test("null for another model type is an error that lists the known ones", async () => {
    const base = makeBase("llama");
    base.config = { ...base.config, model_type: "mamba" };
    const error = await caught(() => getPeftModel(base, new LoraConfig()));
    expect(error).toMatchObject({ code: "ARGUMENT", fields: { model_type: "mamba" } });
    expect(error.message).toContain("gpt2");
  });

  test("all-linear leaves the head out", () => {
    for (const name of ["llama", "llama tied"]) {
      const { names } = wrapped({ target_modules: "all-linear" }, name);
      expect(names).toHaveLength(7);
      expect(names).not.toContain("lm_head");
    }
    expect(wrapped({ target_modules: "All-Linear", fan_in_fan_out: true }, "gpt2").names).toHaveLength(4);
  });

  test("a name without a match is a warning where another matches, an error where none does", async () => {
    const { names, codes } = wrapped({ target_modules: ["q_proj", "c_attn"] });
    expect(names).toEqual([`${ATTENTION}.q_proj`]);
    expect(codes).toEqual(["TARGET_UNMATCHED"]);
    const error = await caught(() => wrapped({ target_modules: ["q_projs"] }));
    expect(error).toMatchObject({ name: "TargetError", code: "NOT_FOUND" });
    expect(error.message).toContain("did you mean");
  });

  test("no targets at all is an error that names the config for rows alone", async () => {
    const error = await caught(() => wrapped({ target_modules: [], trainable_token_indices: [1] }));
    expect(error).toMatchObject({ code: "NOT_FOUND" });
    expect(error.message).toContain("TrainableTokensConfig");
  });

  test("excluded modules win, as names and as a pattern", async () => {
    for (const exclude_modules of [["v_proj"], ".*v_proj"])
      expect(wrapped({ exclude_modules }).names).toEqual([`${ATTENTION}.q_proj`]);
    const error = await caught(() => wrapped({ exclude_modules: ["self_attn.q_proj", "self_attn.v_proj"] }));
    expect(error.message).toContain("excluded");
  });

  test("the layer filter keeps the layers it names; a full name passes it", async () => {
    const target_modules = ["q_proj"];
    expect(wrapped({ target_modules, layers_to_transform: 0 }).names).toEqual([`${ATTENTION}.q_proj`]);
    expect(wrapped({ target_modules, layers_to_transform: [0], layers_pattern: "layers" }).names).toHaveLength(1);
    const full = `${ATTENTION}.v_proj`;
    expect(wrapped({ target_modules: [full], layers_to_transform: 7 }).names).toEqual([full]);
    for (const filter of [{ layers_to_transform: [7] }, { layers_to_transform: 0, layers_pattern: "h" }]) {
      const error = await caught(() => wrapped({ target_modules, ...filter }));
      expect(error).toMatchObject({ code: "NOT_FOUND", fields: filter });
      expect(error.message).toContain("layer filter");
    }
  });

  test("a module that is neither linear nor an embedding is refused", async () => {
    const error = await caught(() => wrapped({ target_modules: ["input_layernorm"] }));
    expect(error).toMatchObject({ name: "TargetError", code: "KIND" });
  });

  test("patterns give ranks and alphas, the first that matches; those without a match are named", () => {
    const { codes, onWarning } = listener();
    const config = new LoraConfig({
      r: 2,
      lora_alpha: 6,
      rank_pattern: { "self_attn.q_proj": 3, q_proj: 5, nothing: 4 },
      alpha_pattern: { ".*v_proj": 8 },
    });
    const peft = getPeftModel(makeBase("llama"), config, { onWarning });
    const shapes = [...peft.namedParameters()].filter(([key]) => key.includes("lora_A")).map(([, t]) => t.shape);
    expect(shapes).toEqual([
      [3, 6],
      [2, 6],
    ]);
    expect(codes).toEqual(["PATTERN_UNMATCHED"]);
    const scales = peft.adapters
      .layersOf("default")
      .map((layer) => (layer as never as { partOf(n: string): { scale: number } }).partOf("default").scale);
    expect(scales).toEqual([2, 4]);
  });

  test("fan_in_fan_out is corrected with a warning, and saved corrected", () => {
    for (const [name, given] of [
      ["gpt2", false],
      ["llama", true],
    ] as const) {
      const { codes, onWarning } = listener();
      const peft = getPeftModel(makeBase(name), new LoraConfig({ fan_in_fan_out: given }), { onWarning });
      expect(codes).toEqual(["FAN_IN_FAN_OUT"]);
      expect(peft.peftConfig["default"]!.toJSON()["fan_in_fan_out"]).toBe(!given);
    }
  });
});

describe("patterns of a config", () => {
  test.each<[string, LoraOptions]>([
    ["target_modules", { target_modules: ".*_pro(j" }],
    ["exclude_modules", { exclude_modules: ".*_pro(j" }],
    ["layers_pattern", { target_modules: ["q_proj"], layers_to_transform: 0, layers_pattern: ".*_pro(j" }],
    ["rank_pattern", { rank_pattern: { ".*_pro(j": 3 } }],
    ["alpha_pattern", { alpha_pattern: { ".*_pro(j": 3 } }],
  ])("in %s that is none is refused by that key, at its own position", async (key, options) => {
    const base = makeBase("llama");
    const error = await caught(() => getPeftModel(base, new LoraConfig(options)));
    expect(error).toMatchObject({ name: "ConfigError", code: "REGEX", fields: { pattern: ".*_pro(j", position: 6 } });
    expect(error.message).toBe(
      `${key}: must be a regular expression that JavaScript knows too, got .*_pro(j, which fails at position 6`,
    );
    expect([...base.namedModules()].some(([path]) => path.includes("base_layer"))).toBe(false);
  });
});

/** What PEFT and Python made of random configs and patterns; written by targets.py beside it. */
interface Recorded {
  readonly names: readonly string[];
  readonly patterns: readonly { readonly pattern: string; readonly matches: readonly number[] | null }[];
  readonly trees: readonly (readonly string[])[];
  readonly configs: readonly {
    readonly tree: number;
    readonly options: LoraOptions;
    readonly targets: readonly number[];
    readonly matches_containers: boolean;
    readonly ranks: readonly number[];
  }[];
}
class Tree extends Module {
  forward(): never {
    throw new Error("a tree of names has no forward pass");
  }
}
function treeOf(names: readonly string[]): AdaptableModel {
  const root = new Tree();
  for (const name of names) {
    let at = root as unknown as Record<string, Module>;
    const parts = name.split(".");
    for (const part of parts.slice(0, -1)) at = (at[part] ??= new Tree()) as unknown as typeof at;
    at[parts.at(-1)!] = new Linear(zeros([1, 1]));
  }
  return root as AdaptableModel;
}

describe("as PEFT has it", () => {
  const file = new URL("../../../../fixtures/targets.json", import.meta.url);
  const { names, patterns, trees, configs } = JSON.parse(readFileSync(file, "utf8")) as Recorded;

  test("a pattern matches the names that Python's matches, or is refused", async () => {
    let refused = 0;
    for (const { pattern, matches } of patterns) {
      let expression: RegExp;
      try {
        expression = pythonPattern(pattern);
      } catch (error) {
        expect(error, pattern).toMatchObject({ code: "REGEX" });
        if (matches !== null) refused++;
        continue;
      }
      const found = names.flatMap((name, i) => (expression.test(name) ? [i] : []));
      if (matches !== null) expect(found, pattern).toEqual(matches);
    }
    expect(refused).toBeLessThan(patterns.length / 5); // what JavaScript lacks was drawn that often
  });

  test("configs select the same modules, with the same ranks", async () => {
    const roots = trees.map(treeOf);
    for (const { tree, options, targets, matches_containers, ranks } of configs) {
      const config = new LoraConfig({ ...options, r: 10 });
      const title = JSON.stringify(options);
      const run = (): string[] => loraTargets(roots[tree]!, config, [], () => {});
      if (matches_containers) expect(await caught(run), title).toMatchObject({ code: "KIND" });
      else if (targets.length === 0) expect(await caught(run), title).toMatchObject({ code: "NOT_FOUND" });
      else expect(run().toSorted(), title).toEqual(targets.map((i) => trees[tree]![i]!).toSorted());
      expect(
        trees[tree]!.map((name) => byPattern(name, config, "rank_pattern", 10)),
        title,
      ).toEqual(ranks);
    }
  });
});
