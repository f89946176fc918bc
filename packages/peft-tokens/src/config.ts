import { type ConfigFile, checkBoolean, checkNames, checkOptionKeys, optionsOf, toFile } from "./configFile.ts";
import { ConfigError } from "./errors.ts";
import type { OnWarning } from "./warnings.ts";

export const TASK_TYPES = [
  "SEQ_CLS",
  "SEQ_2_SEQ_LM",
  "CAUSAL_LM",
  "TOKEN_CLS",
  "QUESTION_ANS",
  "FEATURE_EXTRACTION",
] as const;
export type TaskType = (typeof TASK_TYPES)[number];

/** The release of PEFT whose files these configs are checked against. */
export const PEFT_VERSION = "0.21.0";

/** What may be given in code; keys are those of adapter_config.json. */
export interface TrainableTokensOptions {
  /** Ids whose rows train; row i of the adapter belongs to token_indices[i]. */
  readonly token_indices: readonly number[] | Int32Array;
  /** Names (whole or their last components), a regular expression over the whole name, or null for the input embedding. */
  readonly target_modules?: string | readonly string[] | null;
  /** true: rows start as the base's, a no-op until trained; false: N(0, 1). */
  readonly init_weights?: boolean;
  readonly task_type?: TaskType | null;
  /** true: the adapter is created frozen. */
  readonly inference_mode?: boolean;
  readonly base_model_name_or_path?: string | null;
  readonly revision?: string | null;
  readonly auto_mapping?: Readonly<Record<string, string>> | null;
  /** Written into the file; null leaves it out, for PEFT before 0.18. */
  readonly peft_version?: string | null;
}

const DEFAULTS = {
  target_modules: null,
  init_weights: true,
  task_type: null,
  inference_mode: false,
  base_model_name_or_path: null,
  revision: null,
  auto_mapping: null,
  peft_version: PEFT_VERSION,
} as const;
const KEYS = ["token_indices", "peft_type", ...Object.keys(DEFAULTS)];

/** The config of a Trainable Tokens adapter. Throws ConfigError for what no adapter can be made from. */
export class TrainableTokensConfig {
  readonly peft_type = "TRAINABLE_TOKENS";
  readonly token_indices: readonly number[];
  readonly target_modules: string | readonly string[] | null;
  readonly init_weights: boolean;
  readonly task_type: TaskType | null;
  readonly inference_mode: boolean;
  readonly base_model_name_or_path: string | null;
  readonly revision: string | null;
  readonly auto_mapping: Readonly<Record<string, string>> | null;
  readonly peft_version: string | null;
  /** The file it was read from: written back with the same keys, known or not. */
  readonly #file: ConfigFile | null;

  constructor(options: TrainableTokensOptions, file: ConfigFile | null = null) {
    checkOptionKeys("TrainableTokensConfig", options, KEYS);
    const given = { ...DEFAULTS, ...options };
    checkIds(given.token_indices);
    checkNames("target_modules", given.target_modules);
    checkBoolean("init_weights", given.init_weights);
    checkBoolean("inference_mode", given.inference_mode);
    checkTaskType("TrainableTokensConfig", given.task_type);
    this.token_indices = [...given.token_indices];
    this.target_modules = given.target_modules;
    this.init_weights = given.init_weights;
    this.task_type = given.task_type;
    this.inference_mode = given.inference_mode;
    this.base_model_name_or_path = given.base_model_name_or_path;
    this.revision = given.revision;
    this.auto_mapping = given.auto_mapping;
    this.peft_version = given.peft_version;
    this.#file = file;
  }

  /** From the object of adapter_config.json; keys that are not ours are kept, with a warning. */
  static fromFile(file: ConfigFile, onWarning: OnWarning): TrainableTokensConfig {
    const options = { token_indices: [], ...optionsOf(file, KEYS, onWarning) };
    return new TrainableTokensConfig(options, file);
  }

  /** The same with other targets. */
  withTargets(target_modules: string | readonly string[] | null): TrainableTokensConfig {
    const { peft_type: _, ...options } = { ...this };
    return new TrainableTokensConfig({ ...options, target_modules }, this.#file && { ...this.#file, target_modules });
  }

  /** The same with other tokens, or rows that start otherwise. */
  with(changes: Partial<Pick<TrainableTokensOptions, "token_indices" | "init_weights">>): TrainableTokensConfig {
    const { peft_type: _, ...options } = { ...this };
    return new TrainableTokensConfig({ ...options, ...changes }, this.#file && { ...this.#file, ...changes });
  }
  /** The same for rows of these modules. */
  withRows(rows: ReadonlyMap<string, readonly number[]>): TrainableTokensConfig {
    return this.withTargets([...rows.keys()]);
  }

  get isFromFile(): boolean {
    return this.#file !== null;
  }

  /** The object of adapter_config.json. */
  toJSON(): Record<string, unknown> {
    return toFile({ ...this } as Record<string, unknown>, this.#file);
  }
}

/** Throws ConfigError TASK_TYPE. */
export function checkTaskType(where: string, task_type: unknown): void {
  if (task_type === null || TASK_TYPES.includes(task_type as TaskType)) return;
  throw new ConfigError(
    "TASK_TYPE",
    `${where}: task_type must be null or one of ${TASK_TYPES.join(", ")}, got ${JSON.stringify(task_type)}`,
    { task_type },
  );
}

/** A non-empty list of unique token ids. Throws ConfigError INDICES_EMPTY, INDEX_TYPE, INDEX_RANGE or INDEX_DUPLICATE. */
export function checkIds(ids: unknown): void {
  if (!Array.isArray(ids) && !(ids instanceof Int32Array)) {
    throw new ConfigError("INDEX_TYPE", `token_indices: must be a list of token ids, got ${JSON.stringify(ids)}`, {
      value: ids,
    });
  }
  const list = [...ids] as unknown[];
  if (list.length === 0)
    throw new ConfigError("INDICES_EMPTY", "token_indices: must name at least one token id, got none");
  const wrong = list.flatMap((id, position) => (Number.isInteger(id) ? [] : [{ position, id }]));
  if (wrong.length > 0) {
    throw new ConfigError("INDEX_TYPE", `token_indices: ids must be integers, got ${describe(wrong)}`, {
      values: wrong,
    });
  }
  const negative = (list as number[]).flatMap((id, position) => (id < 0 ? [{ position, id }] : []));
  if (negative.length > 0) {
    throw new ConfigError("INDEX_RANGE", `token_indices: ids must be 0 or more, got ${describe(negative)}`, {
      values: negative,
    });
  }
  const repeated = list.flatMap((id, position) => (list.indexOf(id) < position ? [{ position, id }] : []));
  if (repeated.length > 0) {
    throw new ConfigError("INDEX_DUPLICATE", `token_indices: ids must be unique, got ${describe(repeated)} again`, {
      values: repeated,
    });
  }
}

/** Ids must name rows of every target table. */
export function checkRange(ids: readonly number[], rows: number, module: string): void {
  const outside = ids.flatMap((id, position) => (id >= rows ? [{ position, id }] : []));
  if (outside.length === 0) return;
  throw new ConfigError(
    "INDEX_RANGE",
    `token_indices: ids must be below the ${rows} rows of ${module}, got ${describe(outside)}; resize the embedding first`,
    { values: outside, rows, module },
  );
}

const describe = (items: readonly { position: number; id: unknown }[]): string =>
  items.map(({ position, id }) => `${JSON.stringify(id)} at position ${position}`).join(", ");
