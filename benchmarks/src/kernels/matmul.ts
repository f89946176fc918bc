import { Scope, type Tensor, matmul, matmulT, randn, transpose } from "@neolog/tensor";
import { figure, interleave, report } from "../measure.ts";

/** Inner products of one training step: [tokens, in] · [in, out] and the shapes of its gradients. */
const SHAPES = [
  [1024, 96, 256],
  [512, 768, 768],
  [512, 768, 3072],
  [1, 768, 3072],
] as const;

/** GFLOP/s of a·b, a·bᵀ and aᵀ·b on the default backend. */
export function benchMatmul(): void {
  for (const [m, k, n] of SHAPES) {
    using _inputs = new Scope();
    const a = randn([m, k], 1);
    const b = randn([k, n], 2);
    const bT = randn([n, k], 3);
    const aT = randn([k, m], 4);
    const run = (product: () => Tensor) => () => {
      using _result = new Scope();
      product();
    };
    const samples = interleave({
      NN: run(() => matmul(a, b)),
      NT: run(() => matmulT(a, bT)),
      TN: run(() => matmul(transpose(aT), b)),
    });
    for (const [form, times] of Object.entries(samples)) {
      report(
        figure(`matmul ${form} [${m}, ${k}] x [${k}, ${n}]`, "GFLOP/s", times, (ms) => (2 * m * k * n) / ms / 1e6),
      );
    }
  }
}
