import { Scope, type Tensor, add, div, minimum, mul, sqrt, square, sum, untracked, zeros } from "@neolog/tensor";

/**
 * Scales all gradients by maxNorm / (norm + 1e-6) where that is below 1, and returns their global norm before, a scalar; as
 * torch.nn.utils.clip_grad_norm_. Reads nothing back. The gradients are replaced, and live in the scope around this call.
 */
export function clipGradNorm(params: readonly Tensor[], maxNorm: number): Tensor {
  return untracked(() => {
    using scope = new Scope();
    const trained = params.filter((p) => p.grad);
    const squares = trained.map((p) => sum(square(p.grad!)));
    const norm = scope.keep(sqrt(squares.length > 0 ? squares.reduce((a, b) => add(a, b)) : zeros([])));
    const factor = minimum(div(maxNorm, add(norm, 1e-6)), 1);
    for (const p of trained) {
      const grad = p.grad!;
      p.grad = scope.keep(mul(grad, factor));
      grad.dispose();
    }
    return norm;
  });
}
