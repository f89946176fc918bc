export type ConfigCode =
  | "TASK_TYPE"
  | "UNKNOWN_KEY"
  | "UNSUPPORTED"
  | "ARGUMENT"
  | "INDICES_EMPTY"
  | "INDEX_TYPE"
  | "INDEX_DUPLICATE"
  | "INDEX_RANGE"
  | "RANK"
  | "REGEX"
  | "LAYER_FILTER"
  | "TOKENS_AND_FULL"
  | "TOKENS_AND_LORA"
  | "TIE_CONFLICT";
export type TargetCode = "NOT_FOUND" | "KIND";
export type AdapterCode =
  | "NAME"
  | "EXISTS"
  | "UNKNOWN"
  | "TYPE_MIX"
  | "ALREADY_WRAPPED"
  | "OVERLAP"
  | "MERGED"
  | "NON_FINITE"
  | "SHARED_TABLE"
  | "NOTHING_TO_TRAIN"
  | "BIAS_TWICE";

/** An error with a code to branch on and the facts behind the message. */
class CodedError<C extends string> extends Error {
  readonly code: C;
  readonly fields: Readonly<Record<string, unknown>>;

  constructor(code: C, message: string, fields: Readonly<Record<string, unknown>> = {}) {
    super(message);
    this.code = code;
    this.fields = fields;
  }
}

/** A config or an argument is not what it must be. */
export class ConfigError extends CodedError<ConfigCode> {
  override readonly name = "ConfigError";
}

/** The config's target modules do not fit the model. */
export class TargetError extends CodedError<TargetCode> {
  override readonly name = "TargetError";
}

/** A step of an adapter's life is not possible now. Nothing was changed. */
export class AdapterError extends CodedError<AdapterCode> {
  override readonly name = "AdapterError";
}
