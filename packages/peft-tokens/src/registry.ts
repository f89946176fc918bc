import type { Shape, Tensor } from "@neolog/tensor";
import type { Adapters } from "./adapters.ts";
import type { TrainableTokensConfig } from "./config.ts";
import type { Sides } from "./effective.ts";
import { AdapterError } from "./errors.ts";
import type { InitPolicy } from "./init.ts";
import { lora } from "./lora/method.ts";
import type { LoraConfig } from "./lora/config.ts";
import { trainableTokens } from "./tokens.ts";
import type { OnWarning } from "./warnings.ts";

export interface AddAdapterOptions {
  /** float32 rows over a bfloat16 or float16 base; true by default. */
  readonly autocastAdapterDtype?: boolean;
  /** Seed of what does not start as the base's. */
  readonly seed?: number;
  /** How token rows start; as the config says, where absent. */
  readonly init?: InitPolicy;
  /** Where rows of an embedding hold that is tied to the head: "both" by default. */
  readonly sides?: Sides;
  /** Rows that the vocabulary will have when the adapter is added; as it is now, by default. */
  readonly vocabSize?: number | undefined;
  /** Told of targets without a match, which are errors otherwise. */
  readonly onUnmatched?: OnWarning | undefined;
}

/** The part of an adapter at one module, before it is there. */
export interface Placement {
  /** The module, as the unadapted model names it. */
  readonly path: string;
  /** Names below the path in a file → shapes. */
  readonly tensors: ReadonlyMap<string, Shape>;
  /** The tokens whose rows these are, for token rows. */
  readonly ids?: readonly number[];
  /** Modules that share the part; a file of token rows alone has a copy for each. */
  readonly copies?: readonly string[];
  /** Names below the path that a file may hold besides, and that mean nothing. */
  readonly redundant?: readonly string[];
  /** Puts the part there. */
  readonly attach: () => void;
}
export interface AdapterPlan {
  /** The config with what the model resolved. */
  readonly config: PeftConfig;
  readonly placements: readonly Placement[];
  /** Biases of the base that train with it, by the paths of their modules. */
  readonly biases?: ReadonlyMap<string, Tensor>;
}

/** What a kind of adapter is. */
export interface AdapterMethod<C extends PeftConfig> {
  readonly fromFile: (file: Readonly<Record<string, unknown>>, onWarning: OnWarning) => C;
  /** Every token whose row it replaces, on any module. */
  readonly tokens: (config: C) => readonly number[];
  /** The same config for other tokens, list by list. */
  readonly withTokens: (config: C, change: (ids: readonly number[]) => readonly number[]) => C;
  /** Resolves targets and checks everything; changes nothing. */
  readonly plan: (adapters: Adapters, name: string, config: C, options: AddAdapterOptions) => AdapterPlan;
}

/** Every kind of config, by `peft_type`. */
interface Configs {
  TRAINABLE_TOKENS: TrainableTokensConfig;
  LORA: LoraConfig;
}
export type PeftType = keyof Configs;
export type PeftConfig = Configs[PeftType];

/** One row per adapter method. */
export const METHODS: { readonly [T in PeftType]: AdapterMethod<Configs[T]> } = {
  TRAINABLE_TOKENS: trainableTokens,
  LORA: lora,
};

/** What adding the config would do. Throws AdapterError TYPE_MIX, ConfigError or TargetError. */
export function planAdapter(
  adapters: Adapters,
  name: string,
  config: PeftConfig,
  options: AddAdapterOptions,
): AdapterPlan {
  const other = [...adapters.entries.values()].find((entry) => entry.config.peft_type !== config.peft_type);
  if (other) {
    throw new AdapterError(
      "TYPE_MIX",
      `addAdapter: all adapters of a model must be of one type, got ${config.peft_type} beside ${other.config.peft_type}`,
      { peft_type: config.peft_type, others: other.config.peft_type },
    );
  }
  const method = METHODS[config.peft_type] as AdapterMethod<PeftConfig>;
  return method.plan(adapters, name, config, options);
}

/** Every token whose row an adapter replaces, on any module. */
export const tokensOf = (config: PeftConfig): readonly number[] =>
  (METHODS[config.peft_type] as AdapterMethod<PeftConfig>).tokens(config);

/** The same config for other tokens: `change` is given each of its lists of ids. */
export const withTokens = (config: PeftConfig, change: (ids: readonly number[]) => readonly number[]): PeftConfig =>
  (METHODS[config.peft_type] as AdapterMethod<PeftConfig>).withTokens(config, change);
