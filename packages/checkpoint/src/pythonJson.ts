import { PythonFloat } from "./jsonParser.ts";
import { compareCodePoints } from "./order.ts";

/**
 * The text of Python's json.dumps(value, indent=2, sort_keys=True): ASCII, no final newline. Numbers that are not whole,
 * and PythonFloat, are written as Python's repr writes a float; undefined entries are left out.
 */
export function stringifyPythonJson(value: unknown, { sortKeys = true } = {}): string {
  return print(value, "\n");

  /** `line` is a line break and the indentation of the value's own line. */
  function print(item: unknown, line: string): string {
    const inner = `${line}  `;
    if (item instanceof PythonFloat) return reprFloat(item.value);
    if (typeof item === "number") return Number.isInteger(item) ? String(BigInt(item)) : reprFloat(item);
    if (typeof item === "string") return escape(item);
    if (typeof item !== "object" || item === null) return String(item);
    if (Array.isArray(item)) {
      return item.length === 0 ? "[]" : `[${inner}${item.map((x) => print(x, inner)).join(`,${inner}`)}${line}]`;
    }
    const entries = Object.entries(item).filter(([, x]) => x !== undefined);
    if (sortKeys) entries.sort(([a], [b]) => compareCodePoints(a, b));
    if (entries.length === 0) return "{}";
    return `{${inner}${entries.map(([key, x]) => `${escape(key)}: ${print(x, inner)}`).join(`,${inner}`)}${line}}`;
  }
}

const escape = (text: string): string =>
  JSON.stringify(text).replace(/[\u007f-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** Python's repr: the shortest digits that read back the same, with an exponent below 1e-4 and from 1e16 on. */
function reprFloat(x: number): string {
  if (!Number.isFinite(x)) return String(x);
  const sign = x < 0 || Object.is(x, -0) ? "-" : "";
  const [mantissa, power] = Math.abs(x).toExponential().split("e") as [string, string];
  const exponent = Number(power);
  if (exponent < -4 || exponent >= 16) {
    return `${sign}${mantissa}e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
  }
  const digits = mantissa.replace(".", "");
  if (exponent < 0) return `${sign}0.${"0".repeat(-exponent - 1)}${digits}`;
  const padded = digits.padEnd(exponent + 1, "0");
  return `${sign}${padded.slice(0, exponent + 1)}.${padded.slice(exponent + 1) || "0"}`;
}
