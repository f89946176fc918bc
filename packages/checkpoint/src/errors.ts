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
