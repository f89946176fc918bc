import { type DType, isStorageDType } from "../../dtype.ts";
import { type BinaryOperator, type Node, parseExpression } from "../../expression.ts";
import { FUNCTIONS } from "../../functions.ts";
import { fromBfloat16, fromFloat16, toBfloat16, toFloat16 } from "../../half.ts";

const COMPARISONS: readonly BinaryOperator[] = ["<", "<=", ">", ">=", "==", "!="];

/** JavaScript that computes an expression in double precision over the variables a, b, c. */
export const printExpression = (expression: string): string => print(parseExpression(expression));

function print(node: Node): string {
  switch (node.kind) {
    case "number":
      return String(node.value);
    case "input":
      return "abc"[node.index]!;
    case "negate":
      return `(-${print(node.x)})`;
    case "select":
      return `(${condition(node.condition)} ? ${print(node.x)} : ${print(node.y)})`;
    case "call": {
      const inMath = (Math as unknown as Record<string, unknown>)[node.name] === FUNCTIONS[node.name];
      return `${inMath ? "Math." : ""}${node.name}(${node.args.map(print).join(", ")})`; // V8 inlines Math.*
    }
    case "binary":
      return COMPARISONS.includes(node.operator)
        ? `(${condition(node)} ? 1 : 0)`
        : `(${print(node.x)} ${node.operator} ${print(node.y)})`;
  }
}

function condition(node: Node): string {
  if (node.kind !== "binary" || !COMPARISONS.includes(node.operator)) return print(node);
  const operator = { "==": "===", "!=": "!==" }[node.operator as string] ?? node.operator;
  return `${print(node.x)} ${operator} ${print(node.y)}`;
}

/** JavaScript that reads element `at` of `array`. */
export const load = (dtype: DType, array: string, at: string): string =>
  isStorageDType(dtype) ? `${dtype}[${array}[${at}]]` : `${array}[${at}]`;

/** JavaScript that writes `value`, rounded to the dtype, to element `at` of `array`. */
export function store(dtype: DType, array: string, at: string, value: string): string {
  if (dtype === "bfloat16") return `${array}[${at}] = toBfloat16(${value});`;
  if (dtype === "float16") return `${array}[${at}] = toFloat16(${value});`;
  return `${array}[${at}] = ${value};`;
}

const widened = new Map<DType, Float32Array>();

/** The value of each of the 65,536 bit patterns of a 16-bit float. */
export function wideningTable(dtype: "bfloat16" | "float16"): Float32Array {
  let table = widened.get(dtype);
  if (!table) {
    table = Float32Array.from({ length: 65536 }, (_, bits) => WIDEN[dtype](bits));
    widened.set(dtype, table);
  }
  return table;
}
const WIDEN = { bfloat16: fromBfloat16, float16: fromFloat16 };

/** Compiles a function of its own, so that V8 sees one set of array types in it; `body` may use what `load`, `store` and `printExpression` print. */
export function compile(parameters: readonly string[], body: string): (...args: unknown[]) => void {
  const scope: Record<string, unknown> = { ...FUNCTIONS, toBfloat16, toFloat16 };
  for (const dtype of ["bfloat16", "float16"] as const)
    if (body.includes(`${dtype}[`)) scope[dtype] = wideningTable(dtype);
  const text = `"use strict"; return (${parameters.join(", ")}) => {\n${body}\n};`;
  // oxlint-disable-next-line typescript/no-implied-eval -- kernels are compiled from expressions, never from input
  return new Function(...Object.keys(scope), text)(...Object.values(scope));
}

/** `make(key)`, made once per key. */
export function cached<T>(make: (...key: string[]) => T): (...key: string[]) => T {
  const made = new Map<string, T>();
  return (...key) => {
    const name = key.join();
    let value = made.get(name);
    if (value === undefined) {
      value = make(...key);
      made.set(name, value);
    }
    return value;
  };
}
