import type { Node } from "../../expression.ts";
import { FUNCTIONS } from "../../functions.ts";

/** The value of an expression at inputs a, b, c, in float64; comparisons give 1 or 0. */
export function evaluate(node: Node, inputs: readonly number[]): number {
  switch (node.kind) {
    case "number":
      return node.value;
    case "input":
      return inputs[node.index]!;
    case "negate":
      return -evaluate(node.x, inputs);
    case "select":
      return evaluate(evaluate(node.condition, inputs) ? node.x : node.y, inputs);
    case "call": {
      const apply: (...args: number[]) => number = FUNCTIONS[node.name];
      return apply(...node.args.map((arg) => evaluate(arg, inputs)));
    }
    case "binary": {
      const x = evaluate(node.x, inputs);
      const y = evaluate(node.y, inputs);
      switch (node.operator) {
        case "+":
          return x + y;
        case "-":
          return x - y;
        case "*":
          return x * y;
        case "/":
          return x / y;
        case "<":
          return Number(x < y);
        case "<=":
          return Number(x <= y);
        case ">":
          return Number(x > y);
        case ">=":
          return Number(x >= y);
        case "==":
          return Number(x === y);
        case "!=":
          return Number(x !== y);
      }
    }
  }
}
