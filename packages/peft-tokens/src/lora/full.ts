import { TiedHead, nearest, replaceModule } from "@neolog/nn";
import type { Shape } from "@neolog/tensor";
import type { Adapters } from "../adapters.ts";
import { ConfigError, TargetError } from "../errors.ts";
import type { Placement } from "../registry.ts";
import { grownShape } from "../tables.ts";
import { endsWithName } from "../targets.ts";
import { tieThrough } from "../ties.ts";
import { layerAt, moduleNames, plainAt, weightAt } from "../wrap.ts";
import type { LoraConfig } from "./config.ts";
import { ModulesToSaveWrapper, isCopyable } from "./modulesToSave.ts";

/** The modules that `modules_to_save` names. Throws TargetError NOT_FOUND or KIND, ConfigError UNSUPPORTED. */
export function fullModules({ root }: Adapters, { modules_to_save, ensure_weight_tying }: LoraConfig): string[] {
  const names = moduleNames(root);
  for (const entry of modules_to_save ?? []) {
    if (names.some((name) => endsWithName(name, entry))) continue;
    const near = nearest(entry, names);
    const hint = near.length > 0 ? `; did you mean "${near[0]}"?` : "";
    const message = `modules_to_save: a module must match "${entry}", got none${hint}`;
    throw new TargetError("NOT_FOUND", message, { target_modules: [entry], near });
  }
  const found = names.filter((name) => modules_to_save?.some((entry) => endsWithName(name, entry)));
  for (const path of found) {
    const module = plainAt(root, path)!;
    if (!isCopyable(module) && !(module instanceof TiedHead)) {
      const message = `modules_to_save: ${path} must be a Linear, a Conv1D, an Embedding or a norm, got ${module.constructor.name}; name the modules inside it`;
      throw new TargetError("KIND", message, { name: path });
    }
    if (ensure_weight_tying && tieThrough(root, path)) {
      const message = `ensure_weight_tying: name the embedding in modules_to_save, not ${path}, which is tied to it`;
      throw new ConfigError("UNSUPPORTED", message, { module: path });
    }
  }
  return found;
}

/** A copy of the module at a path. */
export function fullPlacement(
  { root, state }: Adapters,
  path: string,
  config: LoraConfig,
  name: string,
  vocabSize?: number,
): Placement {
  const module = plainAt(root, path)!;
  const own = [...module.namedParameters()].map(([key, t]): [string, Shape] => [key, t.shape]);
  const tensors =
    module instanceof TiedHead
      ? new Map<string, Shape>([
          ["weight", weightAt(root, path).shape],
          ...(module.bias ? [["bias", module.bias.shape] as const] : []),
        ])
      : new Map(own);
  return {
    path,
    tensors: new Map([...tensors].map(([key, shape]) => [key, grownShape({ root }, path, shape, vocabSize)])),
    // with bias "all" PEFT writes biases of such modules twice more
    redundant: ["original_module.bias", "modules_to_save.bias"],
    attach() {
      const there = layerAt(root, path) as ModulesToSaveWrapper | null;
      const wrap = (): ModulesToSaveWrapper =>
        replaceModule(root, path, (base) => new ModulesToSaveWrapper(base, state, () => weightOf(root, path)));
      (there ?? wrap()).add(name, config.ensure_weight_tying);
    },
  };
}

/** The weight of a module, or of the embedding to which a head is tied, or whatever tensor it has. */
const weightOf = (root: Adapters["root"], path: string) => {
  const module = plainAt(root, path)!;
  return module instanceof TiedHead ? weightAt(root, path) : module.parameters()[0]!;
};
