import { type TaskType, PEFT_VERSION, checkIds, checkTaskType } from "../config.ts";
import { type ConfigFile, checkBoolean, checkNames, checkOptionKeys, optionsOf, toFile } from "../configFile.ts";
import { ConfigError } from "../errors.ts";
import type { OnWarning } from "../warnings.ts";

/** Ids for the input embedding, or for each named module. */
export type TokenIndices = readonly number[] | Readonly<Record<string, readonly number[]>>;

/** What may be given in code; keys are those of adapter_config.json. */
export interface LoraOptions {
  /** Rank of the update. */
  readonly r?: number;
  /** The update is scaled by lora_alpha / r, or lora_alpha / √r with `use_rslora`. */
  readonly lora_alpha?: number;
  readonly use_rslora?: boolean;
  /** Probability with which LoRA's inputs are dropped in training mode. */
  readonly lora_dropout?: number;
  /** Names, a regular expression over the whole name, "all-linear", or null for what the model type usually adapts. */
  readonly target_modules?: string | readonly string[] | null;
  readonly exclude_modules?: string | readonly string[] | null;
  /** Numbers of the layers to adapt, for a list of targets. */
  readonly layers_to_transform?: number | readonly number[] | null;
  /** Names of the lists that layers are numbered in. */
  readonly layers_pattern?: string | readonly string[] | null;
  /** Pattern of a module's name → its rank. */
  readonly rank_pattern?: Readonly<Record<string, number>>;
  /** Pattern of a module's name → its lora_alpha. */
  readonly alpha_pattern?: Readonly<Record<string, number>>;
  /** Which biases of the base train too. */
  readonly bias?: "none" | "all" | "lora_only";
  /** Whether targets store [in, out], as GPT-2's Conv1D does; corrected where it is wrong. */
  readonly fan_in_fan_out?: boolean;
  /** true: A uniform, B zero; "gaussian": A normal, B zero; false: both random. */
  readonly init_lora_weights?: boolean | "gaussian";
  /** Modules that are copied and trained in full. */
  readonly modules_to_save?: readonly string[] | null;
  readonly trainable_token_indices?: TokenIndices | null;
  /** Insist that modules tied in the base have the same rows. */
  readonly ensure_weight_tying?: boolean;
  readonly task_type?: TaskType | null;
  readonly inference_mode?: boolean;
  readonly base_model_name_or_path?: string | null;
  readonly revision?: string | null;
  readonly auto_mapping?: Readonly<Record<string, string>> | null;
  readonly peft_version?: string | null;
}

const DEFAULTS = {
  r: 8,
  lora_alpha: 8,
  use_rslora: false,
  lora_dropout: 0,
  target_modules: null,
  exclude_modules: null,
  layers_to_transform: null,
  layers_pattern: null,
  rank_pattern: {},
  alpha_pattern: {},
  bias: "none",
  fan_in_fan_out: false,
  init_lora_weights: true,
  modules_to_save: null,
  trainable_token_indices: null,
  ensure_weight_tying: false,
  task_type: null,
  inference_mode: false,
  base_model_name_or_path: null,
  revision: null,
  auto_mapping: null,
  peft_version: PEFT_VERSION,
} as const satisfies Required<LoraOptions>;

/** Keys of features that are not here; carried through files at these values. */
const UNSUPPORTED: Readonly<Record<string, unknown>> = {
  alora_invocation_tokens: null,
  arrow_config: null,
  corda_config: null,
  eva_config: null,
  kasa_config: null,
  layer_replication: null,
  loftq_config: {},
  lora_bias: false,
  lora_ga_config: null,
  megatron_config: null,
  megatron_core: "megatron.core",
  monteclora_config: null,
  qalora_group_size: 16,
  target_parameters: null,
  use_bdlora: null,
  use_dora: false,
  use_qalora: false,
  velora_config: null,
};
const KEYS = ["peft_type", ...Object.keys(DEFAULTS), ...Object.keys(UNSUPPORTED)];

/** The config of LoRA, with token rows beside it. Hu et al. 2021, https://arxiv.org/abs/2106.09685. Throws ConfigError. */
export class LoraConfig {
  readonly peft_type = "LORA";
  readonly r!: number;
  readonly lora_alpha!: number;
  readonly use_rslora!: boolean;
  readonly lora_dropout!: number;
  readonly target_modules!: string | readonly string[] | null;
  readonly exclude_modules!: string | readonly string[] | null;
  readonly layers_to_transform!: number | readonly number[] | null;
  readonly layers_pattern!: string | readonly string[] | null;
  readonly rank_pattern!: Readonly<Record<string, number>>;
  readonly alpha_pattern!: Readonly<Record<string, number>>;
  readonly bias!: "none" | "all" | "lora_only";
  readonly fan_in_fan_out!: boolean;
  readonly init_lora_weights!: boolean | "gaussian";
  readonly modules_to_save!: readonly string[] | null;
  readonly trainable_token_indices!: TokenIndices | null;
  readonly ensure_weight_tying!: boolean;
  readonly task_type!: TaskType | null;
  readonly inference_mode!: boolean;
  readonly base_model_name_or_path!: string | null;
  readonly revision!: string | null;
  readonly auto_mapping!: Readonly<Record<string, string>> | null;
  readonly peft_version!: string | null;
  /** The file it was read from: written back with the same keys, known or not. */
  readonly #file: ConfigFile | null;

  constructor(options: LoraOptions = {}, file: ConfigFile | null = null) {
    checkOptionKeys("LoraConfig", options, KEYS);
    checkSupported(options);
    const given = { ...DEFAULTS, ...Object.fromEntries(Object.entries(options).filter(([key]) => key in DEFAULTS)) };
    checkValues(given);
    Object.assign(this, given);
    this.#file = file;
  }

  /** From the object of adapter_config.json; keys that are not ours are kept, with a warning. */
  static fromFile(file: ConfigFile, onWarning: OnWarning): LoraConfig {
    return new LoraConfig(optionsOf(file, KEYS, onWarning), file);
  }

  /** The same with what the model resolved. */
  with(changes: Pick<LoraOptions, "target_modules" | "fan_in_fan_out" | "trainable_token_indices">): LoraConfig {
    const { peft_type: _, ...options } = { ...this };
    return new LoraConfig({ ...options, ...changes }, this.#file);
  }

  /** The same for rows of these modules. */
  withRows(rows: ReadonlyMap<string, readonly number[]>): LoraConfig {
    return this.with({ trainable_token_indices: Object.fromEntries(rows) });
  }

  get isFromFile(): boolean {
    return this.#file !== null;
  }

  /** The object of adapter_config.json. */
  toJSON(): Record<string, unknown> {
    return toFile({ ...UNSUPPORTED, ...this }, this.#file);
  }
}

function checkSupported(options: object): void {
  for (const [key, value] of Object.entries(options)) {
    if (!(key in UNSUPPORTED) || JSON.stringify(value) === JSON.stringify(UNSUPPORTED[key])) continue;
    throw new ConfigError(
      "UNSUPPORTED",
      `LoraConfig: ${key} is not supported here and must be ${JSON.stringify(UNSUPPORTED[key])}, got ${JSON.stringify(value)}`,
      { key, value },
    );
  }
}

type Given = Required<LoraOptions>;

function checkValues(given: Given): void {
  for (const key of ["use_rslora", "fan_in_fan_out", "ensure_weight_tying", "inference_mode"] as const)
    checkBoolean(key, given[key]);
  for (const key of ["target_modules", "exclude_modules", "layers_pattern"] as const) checkNames(key, given[key]);
  checkTaskType("LoraConfig", given.task_type);
  checkRank("r", given.r);
  for (const key of ["rank_pattern", "alpha_pattern"] as const)
    must(key, isRecord(given[key]), "a record of numbers", given[key]);
  for (const [pattern, rank] of Object.entries(given.rank_pattern)) checkRank(`rank_pattern["${pattern}"]`, rank);
  must("lora_alpha", isFinite_(given.lora_alpha), "a number", given.lora_alpha);
  for (const [pattern, alpha] of Object.entries(given.alpha_pattern))
    must(`alpha_pattern["${pattern}"]`, isFinite_(alpha), "a number", alpha);
  const p = given.lora_dropout;
  must("lora_dropout", isFinite_(p) && p >= 0 && p < 1, "at least 0 and below 1", p);
  checkChoice("bias", given.bias, ["none", "all", "lora_only"]);
  checkChoice("init_lora_weights", given.init_lora_weights, [true, false, "gaussian"]);
  checkModulesToSave(given.modules_to_save);
  checkLayerFilter(given);
  checkTokenIndices(given.trainable_token_indices);
}

const isFinite_ = (x: unknown): x is number => typeof x === "number" && Number.isFinite(x);

const isRecord = (x: unknown): boolean => typeof x === "object" && x !== null && !Array.isArray(x);

function must(key: string, holds: boolean, what: string, value: unknown): void {
  if (holds) return;
  throw new ConfigError("ARGUMENT", `${key}: must be ${what}, got ${JSON.stringify(value)}`, { key, value });
}

function checkRank(key: string, r: unknown): void {
  if (Number.isInteger(r) && (r as number) >= 1) return;
  throw new ConfigError("RANK", `${key}: must be an integer of at least 1, got ${JSON.stringify(r)}`, {
    key,
    value: r,
  });
}

function checkChoice(key: string, value: unknown, choices: readonly unknown[]): void {
  if (choices.includes(value)) return;
  const known = choices.map((choice) => JSON.stringify(choice)).join(", ");
  throw new ConfigError("UNSUPPORTED", `LoraConfig: ${key} must be one of ${known}, got ${JSON.stringify(value)}`, {
    key,
    value,
  });
}

function checkModulesToSave(names: unknown): void {
  const fits = names === null || (Array.isArray(names) && names.every((name) => typeof name === "string"));
  must("modules_to_save", fits, "null or a list of names", names);
}

function checkLayerFilter({ target_modules, layers_to_transform, layers_pattern }: Given): void {
  const layers = [layers_to_transform ?? []].flat() as unknown[];
  must(
    "layers_to_transform",
    layers.every(Number.isInteger),
    "null, a number or a list of numbers",
    layers_to_transform,
  );
  const wrong = (message: string): ConfigError =>
    new ConfigError("LAYER_FILTER", `LoraConfig: ${message}`, { target_modules, layers_to_transform, layers_pattern });
  const pattern = [layers_pattern ?? []].flat();
  if (typeof target_modules === "string" && (layers_to_transform !== null || layers_pattern !== null)) {
    const what = JSON.stringify(target_modules);
    throw wrong(`layers_to_transform and layers_pattern need a list of target_modules, got ${what}; put it in a list`);
  }
  if (pattern.length > 0 && layers_to_transform === null)
    throw wrong(`layers_pattern needs layers_to_transform, got ${JSON.stringify(layers_pattern)} alone`);
}

function checkTokenIndices(indices: unknown): void {
  if (indices === null) return;
  if (Array.isArray(indices) || indices instanceof Int32Array) return checkIds(indices);
  must("trainable_token_indices", typeof indices === "object", "null, a list of ids or a record of lists", indices);
  const lists = Object.values(indices as object);
  if (lists.length === 0) return checkIds([]);
  for (const list of lists) checkIds(list);
}
