import * as t from "@neolog/tensor";
import type { Tensor } from "@neolog/tensor";

type Inputs = { readonly [name: string]: Tensor };
/** Attributes as torch spells them. */
// oxlint-disable-next-line typescript/no-explicit-any
type Attrs = any;
/** The outputs of a case, by name; one output is "y". */
export type Adapter = (inputs: Inputs, attrs: Attrs) => Tensor | { readonly [name: string]: Tensor };

const unary =
  (f: (x: Tensor) => Tensor): Adapter =>
  ({ x }) =>
    f(x!);
const binary =
  (f: (a: Tensor, b: Tensor) => Tensor): Adapter =>
  ({ a, b }) =>
    f(a!, b!);
const axesOf = (dim: number | readonly number[] | null): number | readonly number[] | undefined => dim ?? undefined;
const reducing =
  (f: (x: Tensor, axes: t.Axes, keepdim: boolean) => Tensor): Adapter =>
  ({ x }, { dim, keepdim }) =>
    f(x!, axesOf(dim), keepdim);

const ids = (i: Tensor): Int32Array => i.dataSync() as Int32Array;

/** Rows ids of w [V, D] for ids of any shape. */
const lookUp = (w: Tensor, i: Tensor): Tensor =>
  t.reshape(t.takeRows(w, t.reshape(i, [-1].with(0, i.size))), [...i.shape, w.shape[1]!]);

/** f(rows), where positions with the padding id pass no gradient on. */
function frozenWhere(i: Tensor, paddingIdx: number | undefined, rows: Tensor, f: (rows: Tensor) => Tensor): Tensor {
  return paddingIdx === undefined
    ? f(rows)
    : t.where(t.unsqueeze(t.equal(i, paddingIdx), -1), f(t.detach(rows)), f(rows));
}

/** x with rows i of its first axis replaced by those of src. */
function indexCopy(x: Tensor, i: Tensor, src: Tensor): Tensor {
  const slots = new Int32Array(x.shape[0]!).fill(-1);
  ids(i).forEach((row, k) => (slots[row] = k));
  return t.overrideRows(x, src, slots);
}

/** x with src written at the positions of index along an axis. */
function scatter(x: Tensor, axis: number, index: Tensor, src: Tensor): Tensor {
  const hit = t.scatterAdd(t.zerosLike(x), axis, index, t.onesLike(src));
  return t.scatterAdd(t.where(hit, 0, x), axis, index, src);
}

/** torch.matmul: vectors gain an axis that the result loses. */
function torchMatmul(a: Tensor, b: Tensor): Tensor {
  if (a.shape.length === 1) return t.squeeze(torchMatmul(t.unsqueeze(a, 0), b), b.shape.length === 1 ? 0 : -2);
  if (b.shape.length === 1) return t.squeeze(t.matmul(a, t.unsqueeze(b, 1)), -1);
  return t.matmul(a, b);
}

/** The reductions, weights and label smoothing of torch's cross_entropy that the public op leaves out. */
function torchCrossEntropy(
  { logits, target }: Inputs,
  { reduction, ignore_index, label_smoothing = 0 }: Attrs,
): Tensor {
  if (reduction === "mean" && label_smoothing === 0) return t.crossEntropy(logits!, target!, ignore_index);
  const logProbabilities = t.logSoftmax(logits!);
  const counted = t.notEqual(target!, ignore_index);
  const index = t.unsqueeze(t.where(counted, target!, 0), 1);
  const picked = t.neg(t.squeeze(t.gather(logProbabilities, 1, index), 1));
  const spread = t.neg(t.mean(logProbabilities, 1));
  const losses = t.where(counted, t.add(t.mul(picked, 1 - label_smoothing), t.mul(spread, label_smoothing)), 0);
  if (reduction === "none") return losses;
  return reduction === "sum" ? t.sum(losses) : t.div(t.sum(losses), t.sum(counted));
}

/** cos and sin [B, 1, T, dim / 2] of positions [B, T]. */
function angles(pos: Tensor, dim: number, theta: number): [cos: Tensor, sin: Tensor] {
  const frequency = t.div(1, t.pow(theta, t.div(t.mul(t.arange(dim / 2, "float32", pos.backend), 2), dim)));
  const angle = t.mul(t.unsqueeze(t.unsqueeze(t.cast(pos, "float32"), 1), 3), frequency);
  return [t.cos(angle), t.sin(angle)];
}

function rotary({ x, pos }: Inputs, theta: number, interleaved: boolean, dim = x!.shape.at(-1)!): Tensor {
  const [cos, sin] = angles(pos!, dim, theta);
  const turned = t.rope(t.slice(x!, -1, 0, dim), cos, sin, interleaved);
  return dim === x!.shape.at(-1) ? turned : t.cat([turned, t.slice(x!, -1, dim)], -1);
}

/** Rows of delta in place of those of w that `rows` names. */
const tokens = ({ w, rows, delta, ids: given }: Inputs): Tensor => {
  const flat = t.reshape(given!, [given!.size]);
  const slots = ids(flat).map((id) => ids(rows!).indexOf(id));
  return t.reshape(t.overrideRows(t.takeRows(w!, flat), delta!, slots), [...given!.shape, w!.shape[1]!]);
};
const tokenHead = (x: Tensor, { w, rows, delta }: Inputs): Tensor =>
  t.overrideColumns(t.matmulT(x, w!), t.matmulT(x, delta!), ids(rows!));

/** The public ops under torch's names and argument conventions. */
export const ADAPTERS: { readonly [op: string]: Adapter } = {
  add: binary(t.add),
  sub: binary(t.sub),
  mul: binary(t.mul),
  div: binary(t.div),
  maximum: binary(t.maximum),
  minimum: binary(t.minimum),
  pow: binary(t.pow),
  mse_loss: binary(t.mseLoss),
  matmul: binary(torchMatmul),
  matmul_transposed: binary(t.matmulT),
  neg: unary(t.neg),
  abs: unary(t.abs),
  exp: unary(t.exp),
  expm1: unary(t.expm1),
  tanh: unary(t.tanh),
  sigmoid: unary(t.sigmoid),
  relu: unary(t.relu),
  silu: unary(t.silu),
  gelu_erf: unary(t.gelu),
  gelu_tanh: unary(t.geluTanh),
  gelu_new: unary(t.geluTanh),
  quick_gelu: unary(t.quickGelu),
  softplus: unary(t.softplus),
  erf: unary(t.erf),
  sin: unary(t.sin),
  cos: unary(t.cos),
  square: unary(t.square),
  logsigmoid: unary(t.logSigmoid),
  sign: unary(t.sign),
  floor: unary(t.floor),
  ceil: unary(t.ceil),
  round: unary(t.round),
  log: unary(t.log),
  log1p: unary(t.log1p),
  sqrt: unary(t.sqrt),
  rsqrt: unary(t.rsqrt),
  reciprocal: unary(t.reciprocal),
  leaky_relu: unary((x) => t.leakyRelu(x, 0.01)),
  elu: unary((x) => t.elu(x, 1)),
  pow_scalar: ({ x }, { exponent }) => t.pow(x!, exponent),
  clamp: ({ x }, { min, max }) => t.clamp(x!, min, max),
  where: ({ c, a, b }) => t.where(c!, a!, b!),
  masked_fill: ({ x, mask }, { value }) => t.where(mask!, value, x!),
  sum: reducing(t.sum),
  mean: reducing(t.mean),
  max: reducing(t.max),
  logsumexp: ({ x }, { dim, keepdim }) => logSumExpOver(x!, dim, keepdim),
  var: ({ x }, { dim, keepdim, correction }) => t.variance(x!, axesOf(dim), keepdim, correction),
  max_with_indices: ({ x }, { dim }) => {
    const i = t.argmax(x!, dim, true);
    return { y: t.squeeze(t.gather(x!, 1, i), dim), i: t.squeeze(i, dim) };
  },
  argmax: ({ x }, { dim }) => t.argmax(x!, dim),
  cumsum: ({ x }, { dim }) => t.cumsum(x!, dim),
  softmax: ({ x }, { dim }) => t.softmax(x!, dim),
  log_softmax: ({ x }, { dim }) => t.logSoftmax(x!, dim),
  cross_entropy: torchCrossEntropy,
  nll_loss: ({ logp, target }, { ignore_index }) => t.nllLoss(logp!, target!, ignore_index),
  causal_lm_loss: ({ logits, labels }, { ignore_index }) => {
    const V = logits!.shape.at(-1)!;
    const rows = t.slice(logits!, 1, 0, -1);
    return t.crossEntropy(t.reshape(rows, [-1, V]), t.reshape(t.slice(labels!, 1, 1), [-1]), ignore_index);
  },
  layer_norm: ({ x, w, c }, { eps }) => {
    const width = [x!.shape.at(-1)!];
    return t.layerNorm(x!, w ?? t.ones(width, x!.dtype, x!.backend), c ?? t.zeros(width, x!.dtype, x!.backend), eps);
  },
  rms_norm: ({ x, w }, { eps, weight_offset = 0 }) => t.rmsNorm(x!, weight_offset ? t.add(w!, weight_offset) : w!, eps),
  linear: ({ x, w, c }) => t.linear(x!, w!, c),
  conv1d_gpt2: ({ x, w, c }) => t.add(t.matmul(x!, w!), c!),
  embedding: ({ w, ids: i }, { padding_idx }) => frozenWhere(i!, padding_idx, w!, (rows) => lookUp(rows, i!)),
  index_select: ({ x, i }, { dim }) => (dim === 0 ? t.takeRows(x!, i!) : t.transpose(t.takeRows(t.transpose(x!), i!))),
  index_copy: ({ x, i, src }) => indexCopy(x!, i!, src!),
  index_add: ({ x, i, src }) => t.add(x!, t.scatterRows(src!, i!, x!.shape[0]!)),
  gather: ({ x, i }, { dim }) => t.gather(x!, dim, i!),
  scatter_add: ({ x, i, src }, { dim }) => t.scatterAdd(x!, dim, i!, src!),
  scatter: ({ x, i, src }, { dim }) => scatter(x!, dim, i!, src!),
  cat: ({ a, b, c }, { dim }) => t.cat([a!, b!, c!], dim),
  stack: ({ a, b }, { dim }) => t.stack([a!, b!], dim),
  split: ({ x }, { sizes, dim }) => {
    const [p, q, r] = t.split(x!, sizes, dim);
    return { p: p!, q: q!, r: r! };
  },
  permute: ({ x }, { dims }) => t.permute(x!, dims),
  transpose_reshape: ({ x }, { dims, shape }) => t.reshape(t.transpose(x!, dims[0], dims[1]), shape),
  slice: ({ x }, { slices }) =>
    (slices as [number | null, number | null, number][]).reduce(
      (y, [start, end, step], axis) => t.slice(y, axis, start ?? 0, end ?? Infinity, step),
      x!,
    ),
  expand: ({ x }, { shape }) => t.expand(x!, shape),
  repeat_interleave: ({ x }, { repeats, dim }) => t.repeatInterleave(x!, repeats, dim),
  tril: ({ x }, { diagonal }) => t.tril(x!, diagonal),
  triu: ({ x }, { diagonal }) => t.triu(x!, diagonal),
  unsqueeze: ({ x }) => t.unsqueeze(t.squeeze(x!, 1), 2),
  rope_half: (inputs, { theta, rotary_dim }) => rotary(inputs, theta, false, rotary_dim),
  rope_interleaved: (inputs, { theta }) => rotary(inputs, theta, true),
  attention: ({ q, k, v, mask }, { scale, softcap }) => t.attention(q!, k!, v!, mask!, { scale, softcap }),
  trainable_tokens_embedding: (inputs, { padding_idx }) =>
    frozenWhere(inputs["ids"]!, padding_idx, inputs["delta"]!, (delta) => tokens({ ...inputs, delta })),
  trainable_tokens_linear: (inputs) => tokenHead(inputs["x"]!, inputs),
  trainable_tokens_tied: (inputs) => tokenHead(t.tanh(tokens(inputs)), inputs),
};

/** logSumExp over several axes: one after the other, as log Σ exp composes. */
function logSumExpOver(x: Tensor, dim: number | readonly number[], keepdim: boolean): Tensor {
  const axes = typeof dim === "number" ? [dim] : dim.toSorted((i, j) => j - i);
  return axes.reduce((y, axis) => t.logSumExp(y, axis, keepdim), x);
}
