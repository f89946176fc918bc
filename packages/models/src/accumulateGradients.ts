import { backward } from "@neolog/autograd";
import { Scope, ShapeError, type Tensor, add, detach, mul } from "@neolog/tensor";
import type { ModelInputs } from "./causalLm.ts";
import { type IdMatrix, toHost } from "./inputs.ts";

/** A batch of a causal language model with labels. */
export type LabelledBatch = ModelInputs & { readonly labels: IdMatrix };

/**
 * Adds to `p.grad`, for each of `parameters`, the gradient of the mean loss over all labels that count in `batches`: what one batch
 * of all their rows gives, with the graph of one batch at a time in memory. → that mean loss, [], without a graph. Gradients live as
 * long as the scope around this call. Throws ShapeError where no label counts.
 */
export function accumulateGradients(
  model: { loss(inputs: ModelInputs): Tensor },
  batches: readonly LabelledBatch[],
  parameters: Iterable<Tensor>,
): Tensor {
  const trained = [...parameters];
  const counts = batches.map(({ labels }) => countTargets(labels));
  const all = counts.reduce((sum, count) => sum + count, 0);
  if (all === 0) {
    throw new ShapeError("accumulateGradients", "a label past the first column must count, got none other than -100");
  }
  let mean: Tensor | null = null;
  batches.forEach((batch, i) => {
    if (counts[i] === 0) return;
    using scope = new Scope();
    const loss = mul(model.loss(batch), counts[i]! / all);
    backward(loss);
    for (const { grad } of trained) if (grad) scope.keep(grad);
    const before: Tensor | null = mean;
    mean = scope.keep(before ? add(before, detach(loss)) : detach(loss));
    before?.dispose();
  });
  return mean!;
}

/** How many labels another position predicts: all but those of the first column and −100. */
function countTargets(labels: IdMatrix): number {
  const { values, columns } = toHost("labels", labels);
  return values.reduce((count, label, i) => count + Number(i % columns > 0 && label !== -100), 0);
}
