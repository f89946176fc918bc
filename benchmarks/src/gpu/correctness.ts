import {
  type Backend,
  Scope,
  type Tensor,
  attention,
  attentionGrad,
  cast,
  cat,
  crossEntropy,
  crossEntropyGrad,
  geluTanh,
  intTensor,
  layerNorm,
  layerNormGrad,
  linearCrossEntropy,
  logSoftmax,
  matmul,
  matmulT,
  randn,
  reshape,
  rmsNorm,
  rmsNormGrad,
  rope,
  scatterRows,
  softmax,
  sum,
  takeRows,
  transpose,
} from "@neolog/tensor";
import type { Figures } from "./figures.ts";

const N = 96;
const V = 5003;

/** Every kernel once, on shapes that no tile divides. */
const OPS: { readonly [name: string]: (b: Backend) => Tensor } = {
  "pointwise gelu": (b) => geluTanh(x(b, N, 131, 1)),
  "matmul NN": (b) => matmul(x(b, N, 130, 1), x(b, 130, 77, 2)),
  "matmul NT": (b) => matmulT(x(b, N, 130, 1), x(b, 77, 130, 2)),
  "matmul TN": (b) => matmul(transpose(x(b, 130, N, 1)), x(b, 130, 77, 2)),
  "matmul bfloat16": (b) => matmulT(x(b, N, 132, 1), cast(x(b, 80, 132, 2), "bfloat16")),
  "sum over 50257": (b) => sum(x(b, 3, 50257, 1), 1),
  "softmax over 50257": (b) => softmax(x(b, 3, 50257, 1)),
  logSoftmax: (b) => logSoftmax(x(b, N, V, 1)),
  layerNorm: (b) => layerNorm(x(b, N, 768, 1), w(b, 2), w(b, 3), 1e-5),
  "layerNorm gradient": (b) => layerNormGrad(x(b, N, 768, 1), w(b, 2), x(b, N, 768, 4), 1e-5),
  rmsNorm: (b) => rmsNorm(x(b, N, 768, 1), w(b, 2), 1e-5),
  "rmsNorm gradient": (b) => rmsNormGrad(x(b, N, 768, 1), w(b, 2), x(b, N, 768, 4), 1e-5),
  rope: (b) =>
    rope(
      randn([2, 3, 5, 64], 1, "float32", b),
      randn([5, 32], 2, "float32", b),
      randn([5, 32], 3, "float32", b),
      false,
    ),
  attention: (b) => attention(...heads(b), causal(b)),
  "attention gradient": (b) => {
    const parts = attentionGrad(...heads(b), causal(b), randn([1, 4, 70, 64], 4, "float32", b), {
      scale: 0.125,
      softcap: null,
      wanted: [true, true, true],
    });
    return cat(
      parts.map((part) => reshape(part!, [part!.size])),
      0,
    );
  },
  "cross entropy": (b) => crossEntropy(x(b, N, V, 1), ids(b, N, V)),
  "cross entropy gradient": (b) => crossEntropyGrad(x(b, N, V, 1), ids(b, N, V), randn([1], 2, "float32", b)),
  "linear cross entropy": (b) => linearCrossEntropy(x(b, N, 64, 1), x(b, V, 64, 2), ids(b, N, V)),
  takeRows: (b) => takeRows(x(b, V, 64, 1), ids(b, N, V)),
  scatterRows: (b) => scatterRows(x(b, N, 64, 1), ids(b, N, 7), 7),
};

const x = (b: Backend, rows: number, columns: number, seed: number): Tensor =>
  randn([rows, columns], seed, "float32", b);
const w = (b: Backend, seed: number): Tensor => reshape(randn([768], seed, "float32", b), [768]);
const ids = (b: Backend, n: number, below: number): Tensor =>
  intTensor(
    Int32Array.from({ length: n }, (_, i) => (i * 7919) % below),
    [n],
    b,
  );
const heads = (b: Backend): [Tensor, Tensor, Tensor] => [
  randn([1, 4, 70, 64], 1, "float32", b),
  randn([1, 2, 70, 64], 2, "float32", b),
  randn([1, 2, 70, 64], 3, "float32", b),
];
const causal = (b: Backend): Tensor =>
  intTensor(
    Int32Array.from({ length: 70 * 70 }, (_, i) => (i % 70 <= Math.floor(i / 70) ? 1 : 0)),
    [70, 70],
    b,
  );

/** The largest difference from the cpu backend, relative to the largest element. Returns the ops that are off by more than 1e-5. */
export async function checkAll(gpu: Backend, cpu: Backend, figures: Figures): Promise<string[]> {
  const wrong: string[] = [];
  for (const [name, op] of Object.entries(OPS)) {
    using _scope = new Scope();
    const [actual, expected] = [await op(gpu).data(), await op(cpu).data()];
    let [largest, off] = [0, 0];
    for (let i = 0; i < expected.length; i++) {
      largest = Math.max(largest, Math.abs(expected[i]!));
      const difference = Math.abs(actual[i]! - expected[i]!);
      if (!(difference <= off)) off = difference;
    }
    const error = off / Math.max(largest, 1e-30);
    figures.add(name, "error, relative to cpu", error, "");
    if (!(error <= 1e-5)) wrong.push(`${name}: off by ${error.toExponential(1)}`);
  }
  return wrong;
}
