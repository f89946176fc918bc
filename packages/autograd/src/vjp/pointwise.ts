import {
  type Operand,
  type PointwiseName,
  type Tensor,
  evaluate,
  evaluateBoth,
  isTracked,
  where,
} from "@neolog/tensor";
import type { Saved, Vjp } from "./rule.ts";

/** Ops whose gradient is an expression over at most three values. */
type Local = Exclude<PointwiseName, "where" | "clamp">;

const SIGMOID = "(1 / (1 + exp(-a)))";
const SILU_SLOPE = `${SIGMOID} * (1 + a * (1 - ${SIGMOID}))`;
/** geluTanh(a) / a */
const PHI = "(0.5 * (1 + tanh(0.7978845608028654 * (a + 0.044715 * a * a * a))))";
const GELU_TANH_SLOPE = `(${PHI} + 1.5957691216057308 * a * ${PHI} * (1 - ${PHI}) * (1 + 0.134145 * a * a))`;

/**
 * ∂loss/∂operand, one expression per operand, null where it is zero everywhere. `a` is the first operand, `b` the second (of unary ops:
 * the result), `c` the incoming gradient. Activations read their input alone: the result need not be kept. At kinks and ties they answer as torch does.
 */
const GRADIENT: { readonly [N in Local]: readonly (string | null)[] } = {
  neg: ["-c"],
  abs: ["a > 0 ? c : a < 0 ? -c : 0"],
  sign: [null],
  exp: ["c * b"],
  expm1: ["c * (b + 1)"],
  log: ["c / a"],
  log1p: ["c / (a + 1)"],
  sqrt: ["c / (2 * b)"],
  rsqrt: ["-0.5 * c * b * b * b"],
  reciprocal: ["-c * b * b"],
  square: ["2 * a * c"],
  sin: ["c * cos(a)"],
  cos: ["-c * sin(a)"],
  tanh: ["c * (1 - b * b)"],
  erf: ["c * 1.1283791670955126 * exp(-a * a)"], // 2/√π
  floor: [null],
  ceil: [null],
  round: [null],
  sigmoid: ["c * b * (1 - b)"],
  logSigmoid: ["c / (1 + exp(a))"],
  softplus: ["c / (1 + exp(-a))"],
  relu: ["b <= 0 ? 0 : c"],
  leakyRelu: ["a > 0 ? c : b * c", "a > 0 ? 0 : a * c"],
  elu: ["a > 0 ? c : b * c * exp(a)", "a > 0 ? 0 : c * expm1(a)"],
  silu: [`c * ${SILU_SLOPE}`],
  gelu: ["c * (0.5 * (1 + erf(a * 0.7071067811865476)) + a * exp(-0.5 * a * a) * 0.3989422804014327)"], // Φ + a·φ, 1/√2π
  geluTanh: [`c * ${GELU_TANH_SLOPE}`],
  quickGelu: ["c / (1 + exp(-1.702 * a)) * (1 + 1.702 * a * (1 - 1 / (1 + exp(-1.702 * a))))"],
  swiglu: [`c * b * ${SILU_SLOPE}`, `c * a * ${SIGMOID}`],
  geglu: [`c * b * ${GELU_TANH_SLOPE}`, `c * a * ${PHI}`],
  add: ["c", "c"],
  sub: ["c", "-c"],
  mul: ["c * b", "c * a"],
  div: ["c / b", "-c * (a / b / b)"],
  pow: ["b == 0 ? 0 : c * b * pow(a, b - 1)", "(a == 0) * (b >= 0) ? 0 : c * pow(a, b) * log(a)"],
  maximum: ["a == b ? 0.5 * c : a < b ? 0 : c", "a == b ? 0.5 * c : b < a ? 0 : c"],
  minimum: ["a == b ? 0.5 * c : a > b ? 0 : c", "a == b ? 0.5 * c : b > a ? 0 : c"],
  equal: [null, null],
  notEqual: [null, null],
  less: [null, null],
  lessEqual: [null, null],
  greater: [null, null],
  greaterEqual: [null, null],
};

/** Ops whose two gradients have most of their work in common. */
const GATED: ReadonlySet<Local> = new Set(["swiglu", "geglu"]);

const isTensor = (x: Operand): x is Tensor => typeof x !== "number";

const rule =
  (op: Local): Vjp<PointwiseName> =>
  ({ inputs, y }, g) => {
    const [a, b = y] = inputs as readonly [Operand, Operand?];
    const [first, second] = GRADIENT[op];
    if (GATED.has(op) && isTensor(a) && isTensor(b) && a.tracked && b.tracked)
      return evaluateBoth(op, [first!, second!], a, b, g);
    return inputs.map((x, i) => {
      const expression = GRADIENT[op][i];
      if (!expression || !isTracked(x)) return null;
      if (expression === "c") return g;
      // what the expression does not read is neither loaded nor needed alive
      return evaluate(op, expression, reads(expression, "a") ? a : 0, reads(expression, "b") ? b : 0, g);
    });
  };

/** The operands, and the result, whose values the rule of a pointwise op reads. */
export function pointwiseReads(
  op: PointwiseName,
  { inputs, y }: Pick<Saved<PointwiseName>, "inputs" | "y">,
): Operand[] {
  if (op === "clamp") return [...inputs];
  if (op === "where") return inputs.slice(1).some(isTracked) ? [inputs[0]!] : [];
  const [a, b = y] = inputs as readonly [Operand, Operand?];
  const wanted = inputs.map((x, i) => (isTracked(x) && GRADIENT[op][i]) || "");
  return [a, b].filter((_, i) => wanted.some((expression) => reads(expression, "ab"[i]!)));
}

const reads = (expression: string, name: string): boolean => new RegExp(`\\b${name}\\b`).test(expression);

const LOCAL_VJP = Object.fromEntries(Object.keys(GRADIENT).map((op) => [op, rule(op as Local)])) as {
  readonly [N in Local]: Vjp<N>;
};

type Triple = readonly [Operand, Operand, Operand];

export const POINTWISE_VJP: { readonly [N in PointwiseName]: Vjp<N> } = {
  ...LOCAL_VJP,
  where: ({ inputs }, g) => {
    const [condition, b, c] = inputs as Triple;
    return [null, isTracked(b) ? where(condition, g, 0) : null, isTracked(c) ? where(condition, 0, g) : null];
  },
  clamp: ({ inputs }, g) => {
    const [x, low, high] = inputs as Triple;
    const passes = (mask: string): Tensor => where(evaluate("clamp", mask, x, low, high), g, 0);
    return [
      isTracked(x) ? passes("(a >= b) * (a <= c)") : null,
      isTracked(low) ? passes("(a < b) * (b < c)") : null,
      isTracked(high) ? passes("a > c ? 1 : c < b") : null,
    ];
  },
};
