import { type Module, replaceModule } from "@neolog/nn";
import type { Shape, Tensor } from "@neolog/tensor";
import type { Adapters } from "./adapters.ts";
import { TrainableTokensConfig, checkRange } from "./config.ts";
import { type InitPolicy, checkInit } from "./init.ts";
import { type RowInit, type TokenBase, TrainableTokensLayer } from "./layer.ts";
import type { AddAdapterOptions, AdapterMethod, Placement } from "./registry.ts";
import { checkSides } from "./sides.ts";
import { resolveTargets } from "./targets.ts";
import { growsWithVocabulary } from "./tables.ts";
import { tiedTo } from "./ties.ts";
import { TrainableTokensWrapper } from "./tokenWrapper.ts";
import { layerAt, weightAt } from "./wrap.ts";

/** Name of the rows below their module in a file. */
export const ROWS = "trainable_tokens_delta";

/** The token layer at a path; wraps the module there where it is still plain. `nested`: beside LoRA. */
export function addTokenLayer(
  { root, state, tokenLayers, weightBuilt }: Adapters,
  path: string,
  nested: boolean,
): TrainableTokensLayer {
  const there = layerAt(root, path);
  if (there) return there as TrainableTokensLayer;
  const table = (): Tensor => weightAt(root, path);
  const sharing = (): TrainableTokensLayer[] => [...tokenLayers().values()].filter((layer) => layer.table === table());
  const context = { state, nested, weightBuilt, table, sharing };
  const create = (base: Module): TrainableTokensLayer => new TrainableTokensLayer(base as TokenBase, context);
  if (!nested) return replaceModule(root, path, create);
  return replaceModule(root, path, (base) => new TrainableTokensWrapper(create(base))).token_adapter;
}

/** What else is known of a place of rows. */
interface Place {
  /** Beside LoRA. */
  readonly nested?: boolean;
  /** Modules that have a copy of the rows in a file. */
  readonly copies?: readonly string[];
  readonly vocabSize?: number | undefined;
}

/** Rows of `ids` in the layer at a path. */
export function tokenPlacement(
  adapters: Adapters,
  name: string,
  path: string,
  ids: readonly number[],
  init: RowInit,
  { nested = false, copies = [], vocabSize }: Place,
): Placement {
  const [rows, width] = weightAt(adapters.root, path).shape as [number, number];
  const count = growsWithVocabulary(adapters, path) ? (vocabSize ?? rows) : rows;
  checkRange(ids, count, path);
  if (init.policy !== undefined) checkInit(init.policy, ids, count);
  checkSides(adapters.root, path, init.sides ?? "both");
  return {
    path,
    tensors: new Map<string, Shape>([[nested ? `token_adapter.${ROWS}` : ROWS, [ids.length, width]]]),
    ids,
    copies,
    attach: () => addTokenLayer(adapters, path, nested).add(name, ids, init),
  };
}

/** Trainable Tokens alone: the same ids on every target. */
export const trainableTokens: AdapterMethod<TrainableTokensConfig> = {
  fromFile: (file, onWarning) => TrainableTokensConfig.fromFile(file, onWarning),
  tokens: ({ token_indices }) => token_indices,
  withTokens: (config, change) => config.with({ token_indices: change(config.token_indices) }),
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
        tokenPlacement(adapters, name, path, config.token_indices, init, {
          copies: tiedTo(root, path),
          vocabSize: options.vocabSize,
        }),
      ),
    };
  },
};

/** A file says that rows start as the base's only where they did. */
function startedAs(policy: InitPolicy | undefined, config: TrainableTokensConfig): TrainableTokensConfig {
  if (policy === undefined) return config;
  const init_weights = policy === "original" || (typeof policy === "object" && policy.kind === "original");
  return config.with({ init_weights });
}
