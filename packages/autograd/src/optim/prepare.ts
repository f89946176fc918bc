import { Scope, type Tensor } from "@neolog/tensor";
import { backward } from "../backward.ts";
import type { Optimizer, OptimizerOptions } from "./optimizer.ts";
import type { TouchedRows } from "./rows.ts";

/**
 * Compiles the kernels of a training step ahead, without stopping the thread, on backends that would do so in the first one; on others
 * nothing happens. Parameters and the optimizer stay as they are, gradients are gone. `loss` must leave nothing behind: what it
 * computes is never there.
 */
export async function prepareStep<O extends OptimizerOptions>(
  optimizer: Optimizer<O>,
  loss: () => Tensor,
  touched?: TouchedRows,
): Promise<void> {
  await optimizer.params[0]!.backend.prepare?.(() => {
    using _scope = new Scope();
    backward(loss());
    optimizer.rehearse(touched);
    optimizer.zeroGrad();
  });
}
