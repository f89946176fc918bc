import { brief } from "./errors.ts";

/** A JSON number written with a point or an exponent though whole, `0.0`: Python reads it as a float and writes it back as one. */
export class PythonFloat {
  readonly value: number;
  constructor(value: number) {
    this.value = value;
  }
}

/** Text is not JSON. `position` counts UTF-16 units from 0. */
export class JsonError extends Error {
  override readonly name = "JsonError";
  readonly position: number;

  constructor(message: string, text: string, position: number) {
    const before = text.slice(0, position).split("\n");
    super(`${message} at line ${before.length}, column ${before.at(-1)!.length + 1}`);
    this.position = position;
  }
}

/** Deeper nesting than this is refused, as by Rust's serde_json. */
const MAX_DEPTH = 128;
const SPACE = /[ \t\n\r]*/y;
const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
/** A backslash or a control character: all but these stand for themselves in a string. */
const SPECIAL = /[^ -[\]-\uffff]/;
const WORD = /-?[A-Za-z]+/y;

export interface JsonOptions {
  /** Keep what a JavaScript number would lose: whole floats become PythonFloat, integers beyond 2^53 become bigint. */
  readonly exact?: boolean;
}

/**
 * Parses JSON as JSON.parse does, with the position of every error, and refuses duplicate keys, which JSON.parse drops.
 * Throws JsonError.
 */
export function parseStrictJson(text: string, { exact = false }: JsonOptions = {}): unknown {
  let at = 0;
  const result = value(0);
  skip(SPACE);
  if (at < text.length) fail(`the text must end, got ${JSON.stringify(text[at])}`);
  return result;

  function fail(message: string, position = at): never {
    throw new JsonError(message, text, position);
  }
  function skip(pattern: RegExp): string {
    pattern.lastIndex = at;
    const [found = ""] = pattern.exec(text) ?? [];
    at += found.length;
    return found;
  }
  /** The next character that is no space. */
  function peek(): string | undefined {
    skip(SPACE);
    return text[at];
  }

  function value(depth: number): unknown {
    if (depth > MAX_DEPTH) fail(`nesting must be at most ${MAX_DEPTH} deep`);
    const c = peek();
    if (c === "{") return object(depth + 1);
    if (c === "[") return array(depth + 1);
    if (c === '"') return string();
    const start = at;
    const digits = skip(NUMBER);
    return digits === "" ? word(start) : number(digits);
  }
  function object(depth: number): unknown {
    const entries = new Map<string, unknown>();
    at++;
    if (peek() !== "}") {
      do {
        if (peek() !== '"') fail("a key must be a string in double quotes");
        const start = at;
        const key = string();
        if (entries.has(key)) fail(`keys must be unique, got ${brief(key)} twice`, start);
        expect(":");
        entries.set(key, value(depth));
      } while (separator("}"));
    } else at++;
    return Object.fromEntries(entries);
  }
  function array(depth: number): unknown[] {
    const items: unknown[] = [];
    at++;
    if (peek() !== "]") {
      do items.push(value(depth));
      while (separator("]"));
    } else at++;
    return items;
  }
  function expect(c: string): void {
    if (peek() !== c) fail(`expected ${JSON.stringify(c)}, got ${JSON.stringify(text[at] ?? "the end")}`);
    at++;
  }
  /** True after a comma, false after `close`. */
  function separator(close: string): boolean {
    if (peek() === ",") {
      at++;
      return true;
    }
    expect(close);
    return false;
  }
  function string(): string {
    const start = at;
    let end = text.indexOf('"', start + 1);
    while (end !== -1 && escaped(end)) end = text.indexOf('"', end + 1);
    if (end === -1) fail("a string must be closed", start);
    at = end + 1;
    const plain = text.slice(start + 1, end);
    if (!SPECIAL.test(plain)) return plain;
    try {
      return JSON.parse(text.slice(start, at)) as string;
    } catch {
      return fail("a string must hold no control characters and only JSON's escapes", start);
    }
  }
  /** True when an odd number of backslashes stands before `position`. */
  function escaped(position: number): boolean {
    let first = position;
    while (text[first - 1] === "\\") first--;
    return (position - first) % 2 === 1;
  }
  function number(digits: string): unknown {
    const parsed = Number(digits);
    if (!exact || (Number.isInteger(parsed) && Number.isSafeInteger(parsed) && /^-?\d+$/.test(digits))) return parsed;
    if (/^-?\d+$/.test(digits)) return BigInt(digits);
    return Number.isInteger(parsed) ? new PythonFloat(parsed) : parsed;
  }
  function word(start: number): unknown {
    const found = skip(WORD);
    if (found === "true") return true;
    if (found === "false") return false;
    if (found === "null") return null;
    if (/^(?:NaN|-?Infinity)$/.test(found)) fail(`${found} is Python's, not JSON's; write null or a number`, start);
    return fail(`a value must follow, got ${brief(found || (text[start] ?? "the end"))}`, start);
  }
}
