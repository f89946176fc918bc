export type CheckpointCode =
  | "NOT_FOUND"
  | "IS_FILE"
  | "PEFT_TYPE"
  | "SHAPE"
  | "DTYPE"
  | "MISSING"
  | "UNEXPECTED"
  | "TIED_DISAGREE"
  | "CORRUPT"
  | "PICKLE";

/** A file cannot be read or written. The message reads `file: what must hold, what was found`. */
export class CheckpointError extends Error {
  override readonly name = "CheckpointError";
  readonly code: CheckpointCode;
  readonly fields: Readonly<Record<string, unknown>>;

  constructor(code: CheckpointCode, message: string, fields: Readonly<Record<string, unknown>> = {}) {
    super(message);
    this.code = code;
    this.fields = fields;
  }
}

/** A found value for a message: as JSON, cut where a hostile or broken file makes it long. */
export function brief(value: unknown): string {
  const text = JSON.stringify(value) ?? "undefined";
  return text.length <= 100 ? text : `${text.slice(0, 100)}… (${text.length} characters)`;
}
