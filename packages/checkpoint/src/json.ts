import { CheckpointError } from "./errors.ts";
import { type Folder, readText } from "./folder.ts";

/** A number that Python writes with a decimal point even when it is whole. */
export class PythonFloat {
  readonly value: number;
  constructor(value: number) {
    this.value = value;
  }
}

/** Parses a JSON file. Throws CheckpointError CORRUPT with the file and what is wrong. */
export async function readJson(folder: Folder, file: string): Promise<unknown> {
  return parseJson(await readText(folder, file), `${folder.name}/${file}`);
}

/** Parses JSON text; `file` is for the message. */
export function parseJson(text: string, file: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    const hint = /\b(NaN|-?Infinity)\b/.test(text) ? " (NaN and Infinity are Python's, not JSON's)" : "";
    throw new CheckpointError("CORRUPT", `${file}: must be JSON, got ${(error as Error).message}${hint}`, { file });
  }
}

/** A JSON file whose top level is an object. */
export async function readJsonObject(folder: Folder, file: string): Promise<Record<string, unknown>> {
  const value = await readJson(folder, file);
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new CheckpointError("CORRUPT", `${folder.name}/${file}: must hold a JSON object`, { file });
  }
  return value as Record<string, unknown>;
}

/** The bytes of Python's json.dumps(value, indent=2, sort_keys=True): no final newline, non-ASCII escaped. */
export function stringifyPythonJson(value: unknown, { sortKeys = true } = {}): string {
  return print(value, "");

  function print(item: unknown, indent: string): string {
    const inner = `${indent}  `;
    if (item instanceof PythonFloat) return Number.isInteger(item.value) ? item.value.toFixed(1) : String(item.value);
    if (typeof item === "string") return escape(item);
    if (typeof item !== "object" || item === null) return String(item);
    if (Array.isArray(item)) {
      return item.length === 0 ? "[]" : `[\n${item.map((x) => inner + print(x, inner)).join(",\n")}\n${indent}]`;
    }
    const entries = Object.entries(item).filter(([, x]) => x !== undefined);
    if (sortKeys) entries.sort(([a], [b]) => (a < b ? -1 : 1));
    if (entries.length === 0) return "{}";
    return `{\n${entries.map(([key, x]) => `${inner}${escape(key)}: ${print(x, inner)}`).join(",\n")}\n${indent}}`;
  }
}

const escape = (text: string): string =>
  JSON.stringify(text).replace(/[\u007f-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
