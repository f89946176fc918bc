import { type Module, type Embedding, type Linear, type TiedHead, replaceModule } from "@neolog/nn";
import type { Shape } from "@neolog/tensor";
import type { Adapters } from "./adapters.ts";
import { TrainableTokensConfig, checkRange } from "./config.ts";
import { type InitPolicy, checkInit } from "./init.ts";
import { type RowInit, TrainableTokensLayer } from "./layer.ts";
import type { AddAdapterOptions, AdapterMethod, Placement } from "./registry.ts";
import { checkSides } from "./sides.ts";
import { resolveTargets } from "./targets.ts";
import { growsWithVocabulary } from "./tables.ts";
import { tiedTo } from "./ties.ts";
import { layerAt, weightAt } from "./wrap.ts";

/** Name of the rows below their module in a file. */
export const ROWS = "trainable_tokens_delta";

/** The token layer at a path; wraps the module there where it is still plain. */
export function addTokenLayer({ root, state, weightBuilt }: Adapters, path: string): TrainableTokensLayer {
  const there = layerAt(root, path);
  if (there) return there as TrainableTokensLayer;
  const create = (base: Module): TrainableTokensLayer =>
    new TrainableTokensLayer(base as Embedding | Linear | TiedHead, {
      state,
      table: () => weightAt(root, path),
      weightBuilt,
    });
  return replaceModule(root, path, create);
}

/** Rows of `ids` in the layer at a path. */
export function tokenPlacement(
  adapters: Adapters,
  name: string,
  path: string,
  ids: readonly number[],
  init: RowInit,
  vocabSize?: number,
): Placement {
  const [rows, width] = weightAt(adapters.root, path).shape as [number, number];
  const count = growsWithVocabulary(adapters, path) ? (vocabSize ?? rows) : rows;
  checkRange(ids, count, path);
  if (init.policy !== undefined) checkInit(init.policy, ids, count);
  checkSides(adapters.root, path, init.sides ?? "both");
  return {
    path,
    tensors: new Map<string, Shape>([[ROWS, [ids.length, width]]]),
    ids,
    copies: tiedTo(adapters.root, path),
    attach: () => addTokenLayer(adapters, path).add(name, ids, init),
  };
}

/** Trainable Tokens alone: the same ids on every target. */
export const trainableTokens: AdapterMethod<TrainableTokensConfig> = {
  fromFile: (file, onWarning) => TrainableTokensConfig.fromFile(file, onWarning),
  tokens: ({ token_indices }) => token_indices,
  plan(adapters, name, config, options: AddAdapterOptions) {
    const { root } = adapters;
    const targets = resolveTargets(root, config.target_modules, options.onUnmatched);
    const init = {
      init_weights: config.init_weights,
      autocastAdapterDtype: options.autocastAdapterDtype ?? true,
      policy: options.init,
      seed: options.seed ?? 0,
      onWarning: adapters.onWarning,
      ...(options.sides ? { sides: options.sides } : {}),
    };
    const single = targets.length === 1 && targets[0] === root.embeddingPath ? targets[0]! : config.target_modules;
    return {
      config: config.isFromFile ? config : startedAs(options.init, config.withTargets(single ?? targets)),
      placements: targets.map((path) =>
        tokenPlacement(adapters, name, path, config.token_indices, init, options.vocabSize),
      ),
    };
  },
};

/** A file says that rows start as the base's only where they did. */
function startedAs(policy: InitPolicy | undefined, config: TrainableTokensConfig): TrainableTokensConfig {
  if (policy === undefined) return config;
  return config.withInit(policy === "original" || (typeof policy === "object" && policy.kind === "original"));
}
