export type WarningCode =
  | "UNKNOWN_KEYS"
  | "TARGET_UNMATCHED"
  | "PATTERN_UNMATCHED"
  | "FAN_IN_FAN_OUT"
  | "ALREADY_MERGED"
  | "NOT_MERGED"
  | "UNMERGED_FIRST"
  | "ACTIVE_DELETED"
  | "BIAS_DISABLED"
  | "NOT_TIED"
  | "UNTIED"
  | "WEIGHT_BUILT"
  | "EMBEDDINGS_SAVED"
  | "BASE_REPLACED"
  | "TABLE_GROWN"
  | "COVARIANCE"
  | "SKIPPED_TENSORS";

export interface Warning {
  readonly code: WarningCode;
  readonly message: string;
}

/** Told of everything that works but deserves a look. */
export type OnWarning = (warning: Warning) => void;

export const toConsole: OnWarning = ({ message }) => console.warn(message);
