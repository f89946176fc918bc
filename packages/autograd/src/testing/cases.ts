import {
  type OpName,
  type PointwiseName,
  type Shape,
  type Tensor,
  add,
  arange,
  attention,
  attentionAfter,
  cast,
  cat,
  contiguous,
  crossEntropy,
  expand,
  intTensor,
  layerNorm,
  linearCrossEntropy,
  logSoftmax,
  matmul,
  max,
  min,
  mul,
  overriddenRows,
  overrideColumns,
  permute,
  pointwise,
  reshape,
  rmsNorm,
  rope,
  scatterRows,
  sigmoid,
  slice,
  softmax,
  square,
  sum,
  takeRows,
} from "@neolog/tensor";
import { type Drawn, broadcastable, drawn, positiveSizes, shapes } from "@neolog/tensor/testing";
import * as fc from "fast-check";
import { checkpoint } from "../checkpoint.ts";

/** Inputs of any strides and the function of them whose gradient is checked. */
export interface Case {
  readonly inputs: readonly Drawn[];
  readonly f: (...inputs: Tensor[]) => Tensor;
}
export type CaseMaker = fc.Arbitrary<Case>;

const between = (low: number, high: number): fc.Arbitrary<number> => fc.double({ min: low, max: high, noNaN: true });
const smooth = between(-2, 2);
const positive = between(0.2, 3);
/** Numbers with at least 0.05 to the next whole and half: where kinks lie, and thresholds in the cases below. */
const offKinks = fc.tuple(fc.integer({ min: -4, max: 3 }), between(0.1, 0.9)).map(([n, part]) => (n + part) / 2);

const small = positiveSizes.map((d) => Math.min(d, 3));
const smallShapes = (minRank: number, maxRank: number): fc.Arbitrary<Shape> => shapes(minRank, maxRank, small);

/** One input of a drawn shape. */
const one = (f: (x: Tensor) => Tensor, values = smooth, minRank = 0): CaseMaker =>
  smallShapes(minRank, 3).chain((shape) => drawn(shape, values).map((x) => ({ inputs: [x], f })));

/** Inputs that broadcast to one drawn shape, one for each range of values. */
const broadcasting = (f: (...inputs: Tensor[]) => Tensor, ...values: fc.Arbitrary<number>[]): CaseMaker =>
  smallShapes(0, 3).chain((shape) =>
    fc
      .tuple(...values.map((each) => broadcastable(shape).chain((s) => drawn(s, each))))
      .map((inputs) => ({ inputs, f })),
  );

const unary = (op: PointwiseName, values = smooth): CaseMaker => one((x) => pointwise(op, x), values);
const binary = (op: PointwiseName, a = smooth, b = smooth): CaseMaker =>
  broadcasting((x, y) => pointwise(op, x, y), a, b);
/** Two inputs that never come near one another: whole numbers against numbers between them. */
const apart = (op: PointwiseName): CaseMaker => binary(op, fc.integer({ min: -2, max: 2 }), offKinks);

/** x with every element different by at least 1/size, so that no extreme is shared. */
const spread = (x: Tensor): Tensor =>
  add(mul(x, 1e-3), reshape(mul(arange(x.size, x.dtype, x.backend), 0.37), x.shape));

const someAxes = (rank: number): fc.Arbitrary<number[]> => fc.subarray(Array.from({ length: rank }, (_, i) => i));
const reduction = (f: (x: Tensor, axes: readonly number[]) => Tensor): CaseMaker =>
  smallShapes(0, 3).chain((shape) =>
    fc.tuple(drawn(shape, smooth), someAxes(shape.length)).map(([x, axes]) => ({ inputs: [x], f: (t) => f(t, axes) })),
  );

/** Rows x of width 1 to 3 with vectors of that width. */
const rows = (vectors: number, f: (...inputs: Tensor[]) => Tensor): CaseMaker =>
  smallShapes(1, 3).chain((shape) =>
    fc
      .tuple(drawn(shape, offKinks), ...Array.from({ length: vectors }, () => drawn([shape.at(-1)!], smooth)))
      .map((inputs) => ({ inputs, f })),
  );

const rowIds = (count: number): fc.Arbitrary<Int32Array> =>
  fc.array(fc.integer({ min: -1, max: count - 1 }), { minLength: 1, maxLength: 4 }).map((ids) => Int32Array.from(ids));

const matrix = (n: number, m: number): fc.Arbitrary<Drawn> => drawn([n, m], smooth);

const ATTENTION: CaseMaker = fc
  .record({
    B: small,
    K: fc.integer({ min: 1, max: 2 }),
    G: fc.integer({ min: 1, max: 2 }),
    T: small,
    S: small,
    D: small,
    P: fc.nat(2),
  })
  .chain(({ B, K, G, T, S, D, P }) =>
    fc
      .tuple(
        drawn([B, K * G, T, D], smooth),
        drawn([B, K, S, D], smooth),
        drawn([B, K, S, 2], smooth),
        drawn([B, K, P, D], smooth),
        drawn([B, K, P, 2], smooth),
        broadcastable([B, K * G, T, P + S]).chain((shape) => drawn(shape, fc.integer({ min: 0, max: 1 }), "int32")),
        fc.constantFrom(null, 1.5),
        fc.option(broadcastable([B, K * G, T, P + S]).chain((shape) => drawn(shape, smooth))),
      )
      .map(([q, k, v, pastKey, pastValue, mask, softcap, bias]) => ({
        inputs: [q, k, v, ...(bias ? [bias] : [])],
        f: (...[a, b, c, d]) => {
          const options = { scale: 0.7, softcap, bias: d ?? null };
          const [key, value] = [pastKey, pastValue].map((x) => x.on(a!.backend, a!.dtype)) as [Tensor, Tensor];
          return P === 0
            ? attention(a!, b!, c!, mask.on(a!.backend), options)
            : attentionAfter({ key, value }, a!, b!, c!, mask.on(a!.backend), options);
        },
      })),
  );

const ROPE: CaseMaker = fc
  .tuple(smallShapes(1, 2), small, fc.boolean())
  .chain(([lead, half, interleaved]) =>
    broadcastable([...lead, half]).chain((angles) =>
      fc
        .tuple(drawn([...lead, 2 * half], smooth), drawn(angles, smooth), drawn(angles, smooth))
        .map((inputs) => ({ inputs, f: (...[x, cos, sin]) => rope(x!, cos!, sin!, interleaved) })),
    ),
  );

const CROSS_ENTROPY: CaseMaker = fc.tuple(small, small).chain(([N, V]) =>
  fc
    .tuple(matrix(N, V), fc.array(fc.constantFrom(-100, 0, V - 1), { minLength: N - 1, maxLength: N - 1 }))
    .map(([logits, targets]) => ({
      inputs: [logits],
      f: (x) => crossEntropy(x, intTensor([V - 1, ...targets], [N], x.backend)),
    })),
);

const LINEAR_CROSS_ENTROPY: CaseMaker = fc
  .record({
    N: small,
    D: small,
    V: fc.integer({ min: 2, max: 4 }),
    softcap: fc.constantFrom(null, 1.5),
    reduction: fc.constantFrom("mean" as const, "none" as const),
  })
  .chain(({ N, D, V, softcap, reduction }) =>
    fc
      .tuple(
        matrix(N, D),
        matrix(V, D),
        matrix(2, D),
        fc.array(fc.constantFrom(-100, 0, 1, V - 1), { minLength: N - 1, maxLength: N - 1 }),
        fc.constantFrom([], [0, 1], [V - 1, 0]),
      )
      .map(([hidden, weight, rows, targets, columns]) => ({
        inputs: columns.length > 0 ? [hidden, weight, rows] : [hidden, weight],
        f: (x, w, r) => {
          const override = r ? { rows: r, columns: Int32Array.from(columns) } : null;
          const ids = intTensor([V - 1, ...targets], [N], x.backend);
          return linearCrossEntropy(x, w, ids, { softcap, override, reduction });
        },
      })),
  );

/** How to make cases of every op; an op without cases does not compile. */
export const CASES: { readonly [N in OpName]: CaseMaker } = {
  neg: unary("neg"),
  abs: unary("abs", offKinks),
  sign: unary("sign", offKinks),
  exp: unary("exp"),
  expm1: unary("expm1"),
  log: unary("log", positive),
  log1p: unary("log1p", between(-0.7, 3)),
  sqrt: unary("sqrt", positive),
  rsqrt: unary("rsqrt", positive),
  reciprocal: unary("reciprocal", offKinks),
  square: unary("square"),
  sin: unary("sin"),
  cos: unary("cos"),
  tanh: unary("tanh"),
  erf: unary("erf"),
  floor: unary("floor", offKinks),
  ceil: unary("ceil", offKinks),
  round: unary("round", offKinks),
  sigmoid: unary("sigmoid"),
  logSigmoid: unary("logSigmoid", offKinks), // its expression, not the function, has a kink at 0
  softplus: unary("softplus", offKinks),
  relu: unary("relu", offKinks),
  leakyRelu: binary("leakyRelu", offKinks),
  elu: binary("elu", offKinks, positive),
  silu: unary("silu"),
  gelu: unary("gelu"),
  geluTanh: unary("geluTanh"),
  quickGelu: unary("quickGelu"),
  swiglu: binary("swiglu"),
  geglu: binary("geglu"),
  add: binary("add"),
  sub: binary("sub"),
  mul: binary("mul"),
  div: binary("div", smooth, offKinks),
  pow: binary("pow", positive),
  maximum: apart("maximum"),
  minimum: apart("minimum"),
  equal: apart("equal"),
  notEqual: apart("notEqual"),
  less: apart("less"),
  lessEqual: apart("lessEqual"),
  greater: apart("greater"),
  greaterEqual: apart("greaterEqual"),
  where: broadcasting((a, b, c) => pointwise("where", pointwise("greater", a, 0), b, c), offKinks, smooth, smooth),
  clamp: broadcasting(
    (x, low, high) => pointwise("clamp", x, low, high),
    offKinks,
    fc.constantFrom(-1, 0),
    fc.constantFrom(0.5, 1),
  ),
  sum: reduction((x, axes) => sum(x, axes)),
  max: reduction((x, axes) => max(spread(x), axes)),
  min: reduction((x, axes) => min(spread(x), axes, true)),
  matmul: fc
    .tuple(smallShapes(0, 2), small, small, small)
    .chain(([batch, m, k, n]) =>
      fc
        .tuple(broadcastable(batch), broadcastable(batch))
        .chain(([p, q]) => fc.tuple(drawn([...p, m, k], smooth), drawn([...q, k, n], smooth))),
    )
    .map((inputs) => ({ inputs, f: (...[a, b]) => matmul(a!, b!) })),
  takeRows: fc.tuple(matrix(3, 2), rowIds(3)).map(([table, ids]) => ({ inputs: [table], f: (x) => takeRows(x, ids) })),
  scatterRows: rowIds(3).chain((ids) =>
    matrix(ids.length, 2).map((x) => ({ inputs: [x], f: (t) => scatterRows(t, ids, 3) })),
  ),
  overriddenRows: fc
    .array(fc.tuple(fc.nat(2), fc.integer({ min: -1, max: 1 })), { minLength: 1, maxLength: 5 })
    .chain((at) =>
      fc.tuple(matrix(3, 2), matrix(2, 2)).map((inputs) => {
        const [ids, slots] = [0, 1].map((i) => Int32Array.from(at, (pair) => pair[i]!));
        return { inputs, f: (...[table, trained]) => overriddenRows(table!, ids!, trained!, slots!) };
      }),
    ),
  overrideColumns: fc
    .tuple(matrix(2, 5), matrix(2, 2))
    .map((inputs) => ({ inputs, f: (...[x, values]) => overrideColumns(x!, values!, Int32Array.of(3, 0)) })),
  cast: one((x) => mul(cast(cast(x, "float32"), "float64"), 1), fc.constant(0)), // where float32 rounds the step least
  contiguous: one((x) => contiguous(x)),
  reshape: one((x) => square(reshape(x, [x.size])), smooth),
  permute: smallShapes(0, 3)
    .chain((shape) =>
      fc.tuple(drawn(shape, smooth), fc.shuffledSubarray([...shape.keys()], { minLength: shape.length })),
    )
    .map(([x, axes]) => ({ inputs: [x], f: (t) => permute(t, axes) })),
  expand: smallShapes(0, 2)
    .chain((shape) => broadcastable(shape).chain((s) => drawn(s, smooth).map((x) => ({ x, shape }))))
    .map(({ x, shape }) => ({ inputs: [x], f: (t) => square(expand(t, [2, ...shape])) })),
  slice: fc
    .tuple(smallShapes(1, 3), fc.nat(2), fc.nat(3), fc.integer({ min: 1, max: 3 }))
    .chain(([shape, start, end, step]) =>
      fc.tuple(drawn(shape, smooth), fc.nat(shape.length - 1)).map(([x, axis]) => ({
        inputs: [x],
        f: (t) => slice(t, axis, start, end, step),
      })),
    ),
  cat: fc
    .tuple(drawn([2, 1, 2], smooth), drawn([2, 0, 2], smooth), drawn([2, 3, 2], smooth))
    .map((inputs) => ({ inputs, f: (...parts) => cat(parts, 1) })),
  softmax: one((x) => softmax(x), smooth, 1),
  logSoftmax: one((x) => logSoftmax(x), smooth, 1),
  layerNorm: rows(2, (x, weight, bias) => layerNorm(x, weight, bias, 0.1)),
  rmsNorm: rows(1, (x, weight) => rmsNorm(x, weight, 0.1)),
  rope: ROPE,
  attention: ATTENTION,
  crossEntropy: CROSS_ENTROPY,
  linearCrossEntropy: LINEAR_CROSS_ENTROPY,
  checkpoint: broadcasting((x, y) => checkpoint((a, b) => mul(sigmoid(a), mul(a, b)), x, y), smooth, smooth),
};
