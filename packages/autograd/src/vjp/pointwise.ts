import {
  type Operand,
  type PointwiseName,
  type Tensor,
  add,
  cos,
  div,
  equal,
  exp,
  greater,
  greaterEqual,
  isTracked,
  less,
  lessEqual,
  log,
  mul,
  neg,
  notEqual,
  pow,
  sigmoid,
  sign,
  sin,
  square,
  sub,
  tanh,
  where,
} from "@neolog/tensor";
import type { Saved, Vjp } from "./rule.ts";

/** Two operands. */
type Pair = readonly [Operand, Operand];
/** Three operands. */
type Triple = readonly [Operand, Operand, Operand];

/** A rule for a unary op: the gradient from x, y and g. */
const unary =
  <N extends PointwiseName>(rule: (x: Tensor, y: Tensor, g: Tensor) => Tensor | null): Vjp<N> =>
  ({ inputs, y }, g) => [rule(inputs[0] as Tensor, y, g)];

/** A rule for a binary op: a gradient for each operand, computed only where one is wanted. */
const binary =
  <N extends PointwiseName>(
    first: (saved: { a: Operand; b: Operand; y: Tensor }, g: Tensor) => Tensor,
    second: (saved: { a: Operand; b: Operand; y: Tensor }, g: Tensor) => Tensor,
  ): Vjp<N> =>
  ({ inputs, y }, g) => {
    const [a, b] = inputs as Pair;
    const saved = { a, b, y };
    return [isTracked(a) ? first(saved, g) : null, isTracked(b) ? second(saved, g) : null];
  };

const none: Vjp<PointwiseName> = ({ inputs }) => inputs.map(() => null);
const INV_SQRT_2PI = 0.3989422804014327;

/** d/dx of gelu's tanh approximation. */
function geluTanhSlope(x: Tensor): Tensor {
  const cube = mul(mul(x, mul(x, x)), 0.044715);
  const t = tanh(mul(add(x, cube), 0.7978845608028654));
  const inner = mul(add(mul(square(x), 3 * 0.044715), 1), 0.7978845608028654);
  return add(mul(add(t, 1), 0.5), mul(mul(mul(x, 0.5), sub(1, square(t))), inner));
}

/** Half the gradient where both are equal, as torch does. */
const shareTies = (wins: Tensor, a: Operand, b: Operand, g: Tensor): Tensor =>
  mul(g, where(equal(a, b), 0.5, mul(wins, 1)));

export const POINTWISE_VJP: { readonly [N in PointwiseName]: Vjp<N> } = {
  neg: unary((_x, _y, g) => neg(g)),
  abs: unary((x, _y, g) => mul(g, sign(x))),
  sign: none,
  exp: unary((_x, y, g) => mul(g, y)),
  expm1: unary((_x, y, g) => mul(g, add(y, 1))),
  log: unary((x, _y, g) => div(g, x)),
  log1p: unary((x, _y, g) => div(g, add(x, 1))),
  sqrt: unary((_x, y, g) => div(g, mul(y, 2))),
  rsqrt: unary((x, y, g) => mul(g, div(y, mul(x, -2)))),
  reciprocal: unary((_x, y, g) => neg(mul(g, square(y)))),
  square: unary((x, _y, g) => mul(g, mul(x, 2))),
  sin: unary((x, _y, g) => mul(g, cos(x))),
  cos: unary((x, _y, g) => neg(mul(g, sin(x)))),
  tanh: unary((_x, y, g) => mul(g, sub(1, square(y)))),
  erf: unary((x, _y, g) => mul(g, mul(exp(neg(square(x))), 2 / Math.sqrt(Math.PI)))),
  floor: none,
  ceil: none,
  round: none,
  sigmoid: unary((_x, y, g) => mul(g, mul(y, sub(1, y)))),
  logSigmoid: unary((x, _y, g) => mul(g, sigmoid(neg(x)))),
  softplus: unary((x, _y, g) => mul(g, sigmoid(x))),
  relu: unary((x, _y, g) => mul(g, greater(x, 0))),
  leakyRelu: binary(
    ({ a, b }, g) => where(greater(a, 0), g, mul(g, b)),
    ({ a }, g) => mul(g, where(greater(a, 0), 0, a)),
  ),
  elu: binary(
    ({ a, b, y }, g) => where(greater(a, 0), g, mul(g, add(y, b))),
    ({ a, b, y }, g) => mul(g, where(greater(a, 0), 0, div(y, b))),
  ),
  silu: unary((x, y, g) => {
    const s = sigmoid(x);
    return mul(g, add(s, mul(y, sub(1, s))));
  }),
  gelu: unary((x, y, g) => {
    const density = mul(exp(mul(square(x), -0.5)), INV_SQRT_2PI);
    const cdf = where(equal(x, 0), 0.5, div(y, x));
    return mul(g, add(cdf, mul(x, density)));
  }),
  geluTanh: unary((x, _y, g) => mul(g, geluTanhSlope(x))),
  quickGelu: unary((x, y, g) => {
    const s = sigmoid(mul(x, 1.702));
    return mul(g, add(s, mul(mul(y, 1.702), sub(1, s))));
  }),
  add: binary(
    (_, g) => g,
    (_, g) => g,
  ),
  sub: binary(
    (_, g) => g,
    (_, g) => neg(g),
  ),
  mul: binary(
    ({ b }, g) => mul(g, b),
    ({ a }, g) => mul(g, a),
  ),
  div: binary(
    ({ b }, g) => div(g, b),
    ({ b, y }, g) => neg(mul(g, div(y, b))),
  ),
  pow: binary(
    ({ a, b }, g) => where(notEqual(mul(b, 1), 0), mul(g, mul(b, pow(a, sub(b, 1)))), 0),
    ({ a, y }, g) => where(notEqual(y, 0), mul(g, mul(y, log(a))), 0),
  ),
  maximum: binary(
    ({ a, b }, g) => shareTies(greater(a, b), a, b, g),
    ({ a, b }, g) => shareTies(less(a, b), a, b, g),
  ),
  minimum: binary(
    ({ a, b }, g) => shareTies(less(a, b), a, b, g),
    ({ a, b }, g) => shareTies(greater(a, b), a, b, g),
  ),
  equal: none,
  notEqual: none,
  less: none,
  lessEqual: none,
  greater: none,
  greaterEqual: none,
  where: ({ inputs }, g) => {
    const [condition, b, c] = inputs as Triple;
    return [null, isTracked(b) ? where(condition, g, 0) : null, isTracked(c) ? where(condition, 0, g) : null];
  },
  clamp: ({ inputs }: Saved<"clamp">, g) => {
    const [x, low, high] = inputs as Triple;
    return [mul(g, mul(greaterEqual(x, low), lessEqual(x, high))), null, null];
  },
};
