import { resultDType, isStorageDType } from "../dtype.ts";
import { broadcastShapes, expandLayout, sameShape } from "../layout.ts";
import { type Operand, execute, fusedGradient, untracked } from "../op.ts";
import type { Tensor } from "../tensor.ts";
import { cast, select, stack } from "./movement.ts";

/** Every pointwise op: the expression over a, b, c is the definition, every backend compiles it. */
export const POINTWISE = {
  neg: "-a",
  abs: "abs(a)",
  sign: "(a > 0) - (a < 0)", // 0 for NaN, as torch
  exp: "exp(a)",
  expm1: "expm1(a)",
  log: "log(a)",
  log1p: "log1p(a)",
  sqrt: "sqrt(a)",
  rsqrt: "1 / sqrt(a)",
  reciprocal: "1 / a",
  square: "a * a",
  sin: "sin(a)",
  cos: "cos(a)",
  tanh: "tanh(a)",
  erf: "erf(a)",
  floor: "floor(a)",
  ceil: "ceil(a)",
  round: "round(a)", // half to even, as torch
  sigmoid: "1 / (1 + exp(-a))",
  logSigmoid: "min(a, 0) - log1p(exp(-abs(a)))",
  softplus: "max(a, 0) + log1p(exp(-abs(a)))",
  relu: "max(a, 0)", // NaN stays NaN
  leakyRelu: "a > 0 ? a : b * a", // b: slope
  elu: "a > 0 ? a : b * expm1(a)", // b: alpha
  silu: "a / (1 + exp(-a))", // x·σ(x), https://arxiv.org/abs/1606.08415
  gelu: "0.5 * a * (1 + erf(a * 0.7071067811865476))", // x·Φ(x), https://arxiv.org/abs/1606.08415
  geluTanh: "0.5 * a * (1 + tanh(0.7978845608028654 * (a + 0.044715 * a * a * a)))", // GPT-2's "gelu_new"
  quickGelu: "a / (1 + exp(-1.702 * a))",
  swiglu: "a / (1 + exp(-a)) * b", // silu(a)·b, https://arxiv.org/abs/2002.05202
  geglu: "0.5 * a * (1 + tanh(0.7978845608028654 * (a + 0.044715 * a * a * a))) * b", // geluTanh(a)·b
  add: "a + b",
  sub: "a - b",
  mul: "a * b",
  div: "a / b",
  pow: "pow(a, b)",
  maximum: "max(a, b)",
  minimum: "min(a, b)",
  equal: "a == b",
  notEqual: "a != b",
  less: "a < b",
  lessEqual: "a <= b",
  greater: "a > b",
  greaterEqual: "a >= b",
  where: "a != 0 ? b : c",
  clamp: "min(max(a, b), c)", // a in [b, c]
} as const;

export type PointwiseName = keyof typeof POINTWISE;

/**
 * Applies a row of POINTWISE to operands of broadcastable shapes. The result has the widest float dtype among the tensors
 * (bfloat16 and float16 count as float32), int32 if all are int32. Comparisons give 1 or 0.
 */
export function pointwise(op: PointwiseName, ...operands: readonly Operand[]): Tensor {
  return compute(op, POINTWISE[op], operands);
}

/** Any expression over a, b, c in one pass, broadcast like `pointwise`; the derivative of `op`, which names it in errors. Records nothing. */
export function evaluate(op: PointwiseName, expression: string, ...operands: readonly Operand[]): Tensor {
  return untracked(() => compute(op, expression, operands));
}

/**
 * Two expressions over a, b and c, broadcast like `pointwise`: both derivatives of a binary `op` for an incoming gradient c, in one pass
 * where the backend has one and the shapes agree. Records nothing.
 */
export function evaluateBoth(
  op: PointwiseName,
  expressions: readonly [string, string],
  a: Tensor,
  b: Tensor,
  c: Tensor,
): [Tensor, Tensor] {
  const each = (): [Tensor, Tensor] => [evaluate(op, expressions[0], a, b, c), evaluate(op, expressions[1], a, b, c)];
  const even = sameShape(a.shape, b.shape) && sameShape(a.shape, c.shape);
  if (!even || a.size === 0 || !a.backend.fused?.pointwiseGrad) return each();
  return untracked(() => {
    const both = fusedGradient("pointwiseGrad", [a, b, c], { expressions }, [2, ...a.shape], () => stack(each()));
    return [select(both, 0, 0), select(both, 0, 1)];
  });
}

function compute(op: PointwiseName, expression: string, operands: readonly Operand[]): Tensor {
  const inputs = operands.map((x) => (typeof x !== "number" && isStorageDType(x.dtype) ? cast(x, "float32") : x));
  const tensors = inputs.filter((x) => typeof x !== "number");
  const shape = broadcastShapes(op, ...tensors.map((x) => x.shape));
  const dtype = resultDType(tensors.map((x) => x.dtype));
  return execute(op, inputs, null, { shape, dtype }, (backend, out) => {
    const views = inputs.map((x) => {
      if (typeof x === "number") return x;
      const { buffer, layout } = x.view(op);
      return { buffer, layout: expandLayout(layout, shape) };
    });
    backend.pointwise(expression, out, views);
  });
}

const unary = (op: PointwiseName) => (a: Operand) => pointwise(op, a);
const binary = (op: PointwiseName) => (a: Operand, b: Operand) => pointwise(op, a, b);
const ternary = (op: PointwiseName) => (a: Operand, b: Operand, c: Operand) => pointwise(op, a, b, c);

export const neg = unary("neg");
export const abs = unary("abs");
export const sign = unary("sign");
export const exp = unary("exp");
export const expm1 = unary("expm1");
export const log = unary("log");
export const log1p = unary("log1p");
export const sqrt = unary("sqrt");
export const rsqrt = unary("rsqrt");
export const reciprocal = unary("reciprocal");
export const square = unary("square");
export const sin = unary("sin");
export const cos = unary("cos");
export const tanh = unary("tanh");
export const erf = unary("erf");
export const floor = unary("floor");
export const ceil = unary("ceil");
export const round = unary("round");
export const sigmoid = unary("sigmoid");
export const logSigmoid = unary("logSigmoid");
export const softplus = unary("softplus");
export const relu = unary("relu");
export const leakyRelu = binary("leakyRelu");
export const elu = binary("elu");
export const silu = unary("silu");
export const gelu = unary("gelu");
export const geluTanh = unary("geluTanh");
export const quickGelu = unary("quickGelu");
export const swiglu = binary("swiglu");
export const geglu = binary("geglu");
export const add = binary("add");
export const sub = binary("sub");
export const mul = binary("mul");
export const div = binary("div");
export const pow = binary("pow");
export const maximum = binary("maximum");
export const minimum = binary("minimum");
export const equal = binary("equal");
export const notEqual = binary("notEqual");
export const less = binary("less");
export const lessEqual = binary("lessEqual");
export const greater = binary("greater");
export const greaterEqual = binary("greaterEqual");
export const where = ternary("where");
export const clamp = ternary("clamp");
