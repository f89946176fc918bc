import type { BinaryOperator, Node } from "../../expression.ts";
import type { FunctionName } from "../../functions.ts";
import type { MathName, ModuleBuilder } from "./asm/module.ts";
import type { PlainOp } from "./asm/opcodes.ts";
import { erf, exp, expm1, log, log1p, onePlusExp, onePlusTanh, tanh } from "./vectorMath.ts";
import type { Lanes, Vectors } from "./vectors.ts";

/** A function of one or two operands. */
type VectorFunction = (v: Vectors, x: Lanes, y: Lanes) => Lanes;

/** What an expression is printed as for lanes of one type. */
interface Arithmetic {
  readonly constant: (v: Vectors, x: number) => Lanes;
  readonly negate: PlainOp;
  readonly operators: { readonly [O in BinaryOperator]?: PlainOp };
  /** Lanes of all ones where x counts as true. */
  readonly isTrue: (v: Vectors, x: Lanes) => Lanes;
  readonly functions: { readonly [N in FunctionName]?: VectorFunction };
}

const unary =
  (name: PlainOp): VectorFunction =>
  (v, x) =>
    v.apply(name, x);
const binary =
  (name: PlainOp): VectorFunction =>
  (v, x, y) =>
    v.apply(name, x, y);

const FLOAT: Arithmetic = {
  constant: (v, x) => v.constant(x),
  negate: "f32x4.neg",
  operators: {
    "+": "f32x4.add",
    "-": "f32x4.sub",
    "*": "f32x4.mul",
    "/": "f32x4.div",
    "<": "f32x4.lt",
    "<=": "f32x4.le",
    ">": "f32x4.gt",
    ">=": "f32x4.ge",
    "==": "f32x4.eq",
    "!=": "f32x4.ne",
  },
  isTrue: (v, x) => v.apply("f32x4.gt", v.apply("f32x4.abs", x), v.constant(0)), // not NaN
  functions: {
    exp,
    expm1,
    log,
    log1p,
    tanh,
    erf,
    sqrt: unary("f32x4.sqrt"),
    abs: unary("f32x4.abs"),
    floor: unary("f32x4.floor"),
    ceil: unary("f32x4.ceil"),
    round: unary("f32x4.nearest"),
    min: binary("f32x4.min"),
    max: binary("f32x4.max"),
    sign: (v, x) => v.select(FLOAT.isTrue(v, x), v.select(v.bits(0x7fffffff), v.constant(1), x), x),
  },
};

const INTEGER: Arithmetic = {
  constant: (v, x) => v.bits(x),
  negate: "i32x4.neg",
  operators: {
    "+": "i32x4.add",
    "-": "i32x4.sub",
    "*": "i32x4.mul",
    "<": "i32x4.lt_s",
    "<=": "i32x4.le_s",
    ">": "i32x4.gt_s",
    ">=": "i32x4.ge_s",
    "==": "i32x4.eq",
    "!=": "i32x4.ne",
  },
  isTrue: (v, x) => v.apply("i32x4.ne", x, v.bits(0)),
  functions: {
    abs: unary("i32x4.abs"),
    min: binary("i32x4.min_s"),
    max: binary("i32x4.max_s"),
  },
};

/** Functions that are computed lane by lane in float64 by Math. */
const IN_MATH: readonly MathName[] = ["sin", "cos", "pow"];

/** Functions of one instruction or a few. */
const CHEAP: readonly FunctionName[] = ["sqrt", "abs", "floor", "ceil", "round", "min", "max", "sign"];

const COMPARISONS: readonly BinaryOperator[] = ["<", "<=", ">", ">=", "==", "!="];
const isComparison = (node: Node): boolean => node.kind === "binary" && COMPARISONS.includes(node.operator);

const childrenOf = (node: Node): readonly Node[] => {
  switch (node.kind) {
    case "number":
    case "input":
      return [];
    case "negate":
      return [node.x];
    case "binary":
      return [node.x, node.y];
    case "select":
      return [node.condition, node.x, node.y];
    case "call":
      return node.args;
  }
};

/** The nodes of an expression. */
const nodesOf = (node: Node): Node[] => [node, ...childrenOf(node).flatMap(nodesOf)];

/** What an expression imports of Math. */
export const mathOf = (node: Node): MathName[] =>
  IN_MATH.filter((name) => nodesOf(node).some((part) => part.kind === "call" && part.name === name));

/** About how many multiply-adds an expression costs. */
export const workOf = (node: Node): number =>
  nodesOf(node).reduce((work, part) => {
    if (part.kind !== "call" || CHEAP.includes(part.name)) return work + 1;
    return work + (part.name in FLOAT.functions ? 8 : 100);
  }, 0);

/** True when an expression over int32 gives in int32 what it gives in float64: no division, whole constants. */
export const isIntegral = (node: Node): boolean =>
  nodesOf(node).every((part) => {
    if (part.kind === "number") return (part.value | 0) === part.value;
    if (part.kind === "binary") return part.operator in INTEGER.operators;
    return part.kind !== "call" || part.name in INTEGER.functions;
  });

/** The values of expressions over float32 or int32 lanes. Equal parts are computed once; both sides of `?:` are. */
export function printVectors(
  m: ModuleBuilder,
  v: Vectors,
  roots: readonly Node[],
  inputs: readonly Lanes[],
  integer: boolean,
): Lanes[] {
  const arithmetic = integer ? INTEGER : FLOAT;
  const known = new Map<string, Lanes>();

  function value(node: Node): Lanes {
    const key = JSON.stringify(node);
    let lanes = known.get(key);
    if (!lanes) known.set(key, (lanes = compute(node)));
    return lanes;
  }
  function compute(node: Node): Lanes {
    switch (node.kind) {
      case "number":
        return arithmetic.constant(v, node.value);
      case "input":
        return inputs[node.index]!;
      case "negate":
        return v.apply(arithmetic.negate, value(node.x));
      case "select":
        return v.select(condition(node.condition), value(node.x), value(node.y));
      case "call":
        return call(node.name, node.args);
      case "binary":
        if (isComparison(node)) return v.apply("v128.and", condition(node), arithmetic.constant(v, 1));
        return (!integer && fused(node.operator, node.x, node.y)) || operator(node.operator, node.x, node.y);
    }
  }
  const operator = (name: BinaryOperator, x: Node, y: Node): Lanes =>
    v.apply(arithmetic.operators[name]!, value(x), value(y));

  /** x·y + z, z + x·y, z − x·y; 1 + eˣ and 1 + tanh x. */
  function fused(name: BinaryOperator, x: Node, y: Node): Lanes | null {
    const isProduct = (node: Node): node is Node & { kind: "binary" } =>
      node.kind === "binary" && node.operator === "*";
    if (name === "+" && x.kind === "number" && x.value === 1 && y.kind === "call") {
      if (y.name === "exp") return onePlusExp(v, value(y.args[0]!));
      if (y.name === "tanh") return onePlusTanh(v, value(y.args[0]!));
    }
    if (name === "+" && isProduct(x)) return v.madd(value(x.x), value(x.y), value(y));
    if (name === "+" && isProduct(y)) return v.madd(value(y.x), value(y.y), value(x));
    if (name === "-" && isProduct(y)) return v.nmadd(value(y.x), value(y.y), value(x));
    return null;
  }
  function call(name: FunctionName, args: readonly Node[]): Lanes {
    const inMath = IN_MATH.find((known) => known === name);
    if (inMath) return v.laneByLane((...lanes) => m.math(inMath, ...lanes), ...args.map(value));
    const [x, y] = args as readonly [Node, Node?];
    if (!integer && y?.kind === "number" && (name === "min" || name === "max")) return bound(name, value(x), y.value);
    return arithmetic.functions[name]!(v, value(x), value(y ?? x));
  }
  /** Math.min or Math.max of x and a constant: one instruction, which keeps NaN; adding 0 makes +0 of −0. */
  function bound(name: "min" | "max", x: Lanes, limit: number): Lanes {
    const y = v.apply(name === "min" ? "f32x4.pmin" : "f32x4.pmax", x, v.constant(limit));
    return name === "max" && limit === 0 ? v.add(y, v.constant(0)) : y;
  }
  function condition(node: Node): Lanes {
    return node.kind === "binary" && isComparison(node)
      ? operator(node.operator, node.x, node.y)
      : arithmetic.isTrue(v, value(node));
  }
  return roots.map(value);
}
