import { CheckpointError, brief } from "./errors.ts";
import type { Folder } from "./folder.ts";
import { JsonError, type JsonOptions, parseStrictJson } from "./jsonParser.ts";

/** Parses a JSON file. Throws CheckpointError: NOT_FOUND, or CORRUPT with the file, the line and the column. */
export async function readJson(folder: Folder, file: string, options?: JsonOptions): Promise<unknown> {
  return parseJson(await folder.readText(file), `${folder.name}/${file}`, options);
}

/** Parses JSON text, refusing duplicate keys; `file` is for the message. Throws CheckpointError CORRUPT. */
export function parseJson(text: string, file: string, options?: JsonOptions): unknown {
  try {
    return parseStrictJson(text, options);
  } catch (error) {
    if (!(error instanceof JsonError)) throw error;
    throw new CheckpointError("CORRUPT", `${file}: must be JSON: ${error.message}`, { file, position: error.position });
  }
}

/** A JSON file whose top level is an object. Throws CheckpointError as `readJson`. */
export async function readJsonObject(
  folder: Folder,
  file: string,
  options?: JsonOptions,
): Promise<Record<string, unknown>> {
  const value = await readJson(folder, file, options);
  if (isJsonObject(value)) return value;
  throw new CheckpointError("CORRUPT", `${folder.name}/${file}: must hold a JSON object, got ${brief(value)}`, {
    file,
  });
}

/** True for what JSON writes in braces. */
export const isJsonObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
