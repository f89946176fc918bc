import { GradientError, OptimizerError } from "@neolog/autograd";
import { CheckpointError } from "@neolog/checkpoint";
import { GenerateOptionError, ModelConfigError, SamplingError, VocabularyError } from "@neolog/models";
import { ModulePathError, StateDictError } from "@neolog/nn";
import { AdapterError, ConfigError, TargetError } from "@neolog/peft-tokens";
import { BackendError, DTypeError, IndexError, ShapeError } from "@neolog/tensor";
import { CommanderError } from "commander";
import { type Io, painter } from "./io.ts";

export const DONE = 0;
export const FAILED = 1;
export const WRONG_USAGE = 2;

/** What was asked cannot be done; the message is the line that the user reads: what must hold, what was given. */
export class CliError extends Error {
  override readonly name = "CliError";
}

/** The command line itself is wrong in a way that the parser cannot see. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** Errors whose message tells the user what to change. All others are bugs of ours. */
const EXPECTED = [
  CliError,
  CheckpointError,
  ModelConfigError,
  VocabularyError,
  GenerateOptionError,
  SamplingError,
  StateDictError,
  ModulePathError,
  ConfigError,
  TargetError,
  AdapterError,
  GradientError,
  OptimizerError,
  ShapeError,
  DTypeError,
  IndexError,
  BackendError,
] as const;

/** Says in one line on stderr why a command failed, and gives its exit code. NEOLOG_DEBUG=1 adds the stack. */
export function report(error: unknown, { stderr, env }: Io): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? DONE : WRONG_USAGE;
  const stopped = error instanceof Error && error.name === "AbortError";
  const message = stopped ? "stopped" : oneLine(error instanceof Error ? error.message : String(error));
  const prefix = painter(stderr, env)("red", "error:");
  const hint = stopped || isExpected(error) || env["NEOLOG_DEBUG"] ? "" : " (unexpected; NEOLOG_DEBUG=1 shows where)";
  stderr.write(`${prefix} ${message}${hint}\n`);
  if (env["NEOLOG_DEBUG"] && error instanceof Error) stderr.write(`${error.stack}\n`);
  return error instanceof UsageError ? WRONG_USAGE : FAILED;
}

/** The same text without line breaks. */
export const oneLine = (text: string): string => text.trim().replace(/\s*\n\s*/g, " ");

const isExpected = (error: unknown): boolean =>
  error instanceof UsageError ||
  EXPECTED.some((kind) => error instanceof kind) ||
  (error instanceof Error && "syscall" in error);
