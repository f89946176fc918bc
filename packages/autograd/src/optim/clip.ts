import { Scope, type Tensor, add, div, minimum, mul, sqrt, square, sum, untracked, zeros } from "@neolog/tensor";

/**
 * Scales all gradients by max / (norm + 1e-6) where that is below 1, and returns their global norm before, a scalar; as
 * torch.nn.utils.clip_grad_norm_. Reads nothing back.
 */
export function clipGradNorm(params: readonly Tensor[], max: number): Tensor {
  return untracked(() => {
    using scope = new Scope();
    const trained = params.filter((p) => p.grad);
    const squares = trained.map((p) => sum(square(p.grad!)));
    const norm = sqrt(squares.length > 0 ? squares.reduce((a, b) => add(a, b)) : zeros([]));
    const factor = minimum(div(max, add(norm, 1e-6)), 1);
    for (const p of trained) p.grad = scope.keep(mul(p.grad!, factor));
    return scope.keep(norm);
  });
}
