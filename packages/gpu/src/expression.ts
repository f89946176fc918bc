import { type BinaryOperator, type FunctionName, type Node, parseExpression } from "@neolog/tensor";

const COMPARISONS: readonly BinaryOperator[] = ["<", "<=", ">", ">=", "==", "!="];

/** What each function of an expression is called in kernels. */
const NAMES: { readonly [N in FunctionName]: string } = {
  exp: "exponential",
  expm1: "exponentialMinus1",
  log: "logarithm",
  log1p: "logarithm1",
  sqrt: "Math.sqrt",
  sin: "sine",
  cos: "cosine",
  tanh: "tangent",
  erf: "errorFunction",
  abs: "Math.abs",
  sign: "signed",
  floor: "Math.floor",
  ceil: "Math.ceil",
  round: "rounded",
  min: "smallest",
  max: "largest",
  pow: "power",
};

/** gpu.js source that computes an expression in float32 over the variables a, b, c. */
export const printExpression = (expression: string): string => print(parseExpression(expression));

function print(node: Node): string {
  switch (node.kind) {
    case "number":
      return String(node.value);
    case "input":
      return "abc"[node.index]!;
    case "negate":
      return `(0 - ${print(node.x)})`;
    case "select":
      return `(${condition(node.condition)} ? ${print(node.x)} : ${print(node.y)})`;
    case "call":
      return `${NAMES[node.name]}(${node.args.map(print).join(", ")})`;
    case "binary":
      if (node.operator === "+" && isOne(node.x) && node.y.kind === "call" && node.y.name === "tanh")
        return `onePlusTangent(${print(node.y.args[0]!)})`;
      return COMPARISONS.includes(node.operator)
        ? `(${condition(node)} ? 1 : 0)`
        : `(${print(node.x)} ${node.operator} ${print(node.y)})`;
  }
}

const isOne = (node: Node): boolean => node.kind === "number" && node.value === 1;

function condition(node: Node): string {
  if (node.kind !== "binary" || !COMPARISONS.includes(node.operator)) return `differs(${print(node)}, 0) > 0`;
  if (node.operator === "!=") return `differs(${print(node.x)}, ${print(node.y)}) > 0`;
  return `${print(node.x)} ${node.operator} ${print(node.y)}`;
}
