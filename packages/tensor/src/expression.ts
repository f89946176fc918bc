import { FUNCTIONS, type FunctionName } from "./functions.ts";

/** The syntax tree of a pointwise expression; every backend prints or evaluates it. */
export type Node =
  | { readonly kind: "number"; readonly value: number }
  | { readonly kind: "input"; readonly index: number }
  | { readonly kind: "negate"; readonly x: Node }
  | {
      readonly kind: "binary";
      readonly operator: BinaryOperator;
      readonly x: Node;
      readonly y: Node;
    }
  | { readonly kind: "select"; readonly condition: Node; readonly x: Node; readonly y: Node }
  | { readonly kind: "call"; readonly name: FunctionName; readonly args: readonly Node[] };

export type BinaryOperator = "+" | "-" | "*" | "/" | "<" | "<=" | ">" | ">=" | "==" | "!=";

const PRECEDENCE: readonly (readonly BinaryOperator[])[] = [
  ["==", "!="],
  ["<", "<=", ">", ">="],
  ["+", "-"],
  ["*", "/"],
];
const TOKEN = /\s*(\d+(?:\.\d+)?(?:e[+-]?\d+)?|[a-z]\w*|[<>=!]=|[-+*/<>?:(),])/y;

/**
 * Parses an expression over the inputs a, b, c: numbers, + − * /, comparisons (1 or 0), `x ? y : z` and the functions of FUNCTIONS.
 * Throws SyntaxError with the position.
 */
export function parseExpression(text: string): Node {
  const tokens: string[] = [];
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < text.trimEnd().length) {
    const at = TOKEN.lastIndex;
    const match = TOKEN.exec(text);
    if (!match) throw new SyntaxError(`expression "${text}": unexpected "${text[at]}" at ${at}`);
    tokens.push(match[1]!);
  }
  let next = 0;
  const accept = (token: string): boolean => tokens[next] === token && ++next > 0;
  const expect = (token: string): void => {
    if (!accept(token))
      throw new SyntaxError(`expression "${text}": expected "${token}", got "${tokens[next] ?? "end"}"`);
  };

  function conditional(): Node {
    const condition = binary(0);
    if (!accept("?")) return condition;
    const x = conditional();
    expect(":");
    return { kind: "select", condition, x, y: conditional() };
  }
  function binary(level: number): Node {
    const operators = PRECEDENCE[level];
    if (!operators) return unary();
    let x = binary(level + 1);
    for (let operator; (operator = operators.find((o) => tokens[next] === o));) {
      next++;
      x = { kind: "binary", operator, x, y: binary(level + 1) };
    }
    return x;
  }
  function unary(): Node {
    return accept("-") ? { kind: "negate", x: unary() } : primary();
  }
  function primary(): Node {
    if (accept("(")) {
      const inside = conditional();
      expect(")");
      return inside;
    }
    const token = tokens[next++] ?? "end";
    if (/^\d/.test(token)) return { kind: "number", value: Number(token) };
    if (/^[abc]$/.test(token)) return { kind: "input", index: token.charCodeAt(0) - 97 };
    if (!Object.hasOwn(FUNCTIONS, token)) throw new SyntaxError(`expression "${text}": unknown name "${token}"`);
    const args: Node[] = [];
    expect("(");
    do args.push(conditional());
    while (accept(","));
    expect(")");
    return { kind: "call", name: token as FunctionName, args };
  }

  const root = conditional();
  if (next < tokens.length) throw new SyntaxError(`expression "${text}": unexpected "${tokens[next]}"`);
  return root;
}
