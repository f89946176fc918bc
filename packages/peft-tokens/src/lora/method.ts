import { type AdapterLayer } from "../adapterLayer.ts";
import type { Adapters } from "../adapters.ts";
import type { Sides } from "../effective.ts";
import { AdapterError, ConfigError } from "../errors.ts";
import { TrainableTokensLayer } from "../layer.ts";
import type { AdapterMethod, Placement } from "../registry.ts";
import { tokenPlacement } from "../tokens.ts";
import { layerAt, plainAt } from "../wrap.ts";
import { biasPlacements } from "./bias.ts";
import { LoraConfig } from "./config.ts";
import { fullModules, fullPlacement } from "./full.ts";
import { LoraEmbedding } from "./embedding.ts";
import { LoraLayer } from "./layer.ts";
import { ModulesToSaveWrapper } from "./modulesToSave.ts";
import { loraPlacement, storesInFirst } from "./placement.ts";
import { checkPatterns, loraTargets, namedTargets } from "./targets.ts";
import { tokenPlaces, withTies } from "./tokens.ts";

/** LoRA, with token rows and fully trained modules beside it. */
export const lora: AdapterMethod<LoraConfig> = {
  fromFile: (file, onWarning) => LoraConfig.fromFile(file, onWarning),
  tokens({ trainable_token_indices: indices }) {
    if (indices === null) return [];
    return indices instanceof Int32Array || Array.isArray(indices) ? [...indices] : Object.values(indices).flat();
  },
  withTokens(config, change) {
    const { trainable_token_indices: indices } = config;
    if (indices === null) return config;
    if (indices instanceof Int32Array || Array.isArray(indices))
      return config.with({ trainable_token_indices: change([...indices]) });
    const lists = Object.entries(indices).map(([module, ids]) => [module, change([...ids])] as const);
    return config.with({ trainable_token_indices: Object.fromEntries(lists) });
  },
  plan(adapters, name, config, options) {
    const { root, onWarning } = adapters;
    checkBias(adapters, config);
    checkNoSides(options.sides);
    const full = fullModules(adapters, config);
    const rows = tokenPlaces(adapters, config);
    const targets = loraTargets(root, config, full, onWarning);
    const tokens = rows.map(({ path }) => path);
    checkApart(adapters, { targets, tokens, full, config });
    checkPatterns(targets, config, onWarning);
    const autocastAdapterDtype = options.autocastAdapterDtype ?? true;
    const { seed = 0, vocabSize } = options;
    const init = { init_weights: true, policy: options.init, autocastAdapterDtype, seed, onWarning };
    const placements: Placement[] = [
      ...rows.map(({ path, ids, sides }) =>
        tokenPlacement(adapters, name, path, ids, { ...init, sides }, { nested: true, vocabSize }),
      ),
      ...targets.map((path, i) =>
        loraPlacement(adapters, path, config, { autocastAdapterDtype, seed, index: i, vocabSize }, name),
      ),
      ...full.map((path) => fullPlacement(adapters, path, config, name, vocabSize)),
    ];
    const biases = biasPlacements(adapters, config, { targets, tokens, full });
    return {
      config: resolved(adapters, config, targets),
      placements: [...placements, ...biases.placements],
      biases: biases.tensors,
    };
  },
};

/**
 * The config as it is saved: targets by name, sorted; fan_in_fan_out as the targets are. One from a file stays as it is: for a second
 * adapter PEFT writes fan_in_fan_out uncorrected.
 */
function resolved(adapters: Adapters, config: LoraConfig, targets: readonly string[]): LoraConfig {
  if (config.isFromFile) return config;
  const { root } = adapters;
  const fan_in_fan_out = targets.some((path) => storesInFirst(plainAt(root, path)!));
  if (fan_in_fan_out !== config.fan_in_fan_out) {
    const which = fan_in_fan_out ? "[in, out], as a Conv1D does" : "[out, in], as a Linear does";
    adapters.warn("FAN_IN_FAN_OUT", `fan_in_fan_out: set to ${fan_in_fan_out}, since targets store ${which}`);
  }
  const names = namedTargets(root, config);
  return config.with({ fan_in_fan_out, target_modules: typeof names === "string" ? names : names.toSorted() });
}

/** The file of LoRA with token rows says by its lists on which side they hold. */
function checkNoSides(sides: Sides = "both"): void {
  if (sides === "both") return;
  const message = `sides: rows beside LoRA hold where trainable_token_indices names their module, got "${sides}"; name the head alone, or both ends with different lists`;
  throw new ConfigError("UNSUPPORTED", message, { sides });
}

function checkBias({ entries }: Adapters, { bias }: LoraConfig): void {
  if (bias === "none") return;
  const other = [...entries].find(([, { biases }]) => (biases?.size ?? 0) > 0);
  if (!other) return;
  const message = `bias: only one adapter may train the base's biases, got "${bias}" beside ${other[0]}; use "none"`;
  throw new AdapterError("BIAS_TWICE", message, { bias, other: other[0] });
}

interface Parts {
  readonly targets: readonly string[];
  readonly tokens: readonly string[];
  readonly full: readonly string[];
  readonly config: LoraConfig;
}

/** Token rows, LoRA and full training exclude each other on a module and on what is tied to it, also between adapters. */
function checkApart(adapters: Adapters, { targets, tokens, full, config }: Parts): void {
  const { root } = adapters;
  const layers = [...adapters.layers()];
  const having = (kind: (layer: AdapterLayer) => boolean): string[] =>
    layers.filter(([, layer]) => kind(layer)).map(([path]) => path);
  const isLora = (layer: AdapterLayer): boolean => layer instanceof LoraLayer || layer instanceof LoraEmbedding;
  const tokenUsers = withTies(adapters, [...tokens, ...having((layer) => layer instanceof TrainableTokensLayer)]);
  const allFull = [...full, ...having((layer) => layer instanceof ModulesToSaveWrapper)];
  const allLora = [...targets, ...having(isLora)];
  const both = (paths: readonly string[], others: ReadonlySet<string>): string | undefined =>
    paths.find((path) => others.has(path));
  const tokensAndFull = both(allFull, tokenUsers);
  if (tokensAndFull !== undefined) {
    const message = `modules_to_save: ${tokensAndFull} is trained in full, so no rows of it can be in trainable_token_indices; leave one out`;
    throw new ConfigError("TOKENS_AND_FULL", message, { module: tokensAndFull });
  }
  const tokensAndLora = both(allLora, tokenUsers);
  if (tokensAndLora !== undefined) {
    const message = `target_modules: ${tokensAndLora}, or what it is tied to, has rows in trainable_token_indices and cannot have LoRA too; leave one out`;
    throw new ConfigError("TOKENS_AND_LORA", message, { module: tokensAndLora });
  }
  const loraAndFull = both(allLora, new Set(allFull));
  if (loraAndFull !== undefined) {
    const message = `target_modules: ${loraAndFull} is trained in full by another adapter and cannot have LoRA too`;
    throw new ConfigError("UNSUPPORTED", message, { module: loraAndFull });
  }
  const tied = config.ensure_weight_tying ? targets.find((path) => withTies(adapters, [path]).size > 1) : undefined;
  if (tied === undefined) return;
  const message = `ensure_weight_tying: LoRA on tied modules is not supported here, got ${tied}; leave the flag or the target out`;
  throw new ConfigError("UNSUPPORTED", message, { module: tied, layer: layerAt(root, tied)?.moduleType ?? null });
}
