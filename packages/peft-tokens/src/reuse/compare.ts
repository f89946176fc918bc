import { worstExcess } from "@neolog/models/testing";
import { Scope, type Tensor, defaultBackend } from "@neolog/tensor";
import { expect } from "vitest";
import type { CallOptions } from "../mixedBatch.ts";
import type { PeftModel } from "../model.ts";
import type { ReusedLoss } from "./reusedLoss.ts";

/** float32 sums in another order. */
const GRADIENTS = { atol: 1e-6, rtol: 1e-5 };

/** The loss and the gradients of all that trains. */
function found(peft: PeftModel, lossOf: () => Tensor): ArrayLike<number>[] {
  using _scope = new Scope();
  const loss = lossOf();
  const trained = peft.parameters().filter((t) => t.requiresGrad);
  peft.backward(loss);
  const values = [loss, ...trained.map((t) => t.grad)].map((t) => t?.dataSync() ?? []);
  for (const t of trained) t.grad = null;
  return values;
}

/**
 * Holds the reused loss to the plain one: to the bit where the backend is exact and `exact` says that rows are aligned; gradients to
 * 1e-6 of each, none where the plain loss gives none.
 */
export function expectPlain(
  peft: PeftModel,
  reuse: ReusedLoss,
  batch: { input_ids: number[][]; labels: number[][] },
  exact = true,
  options: CallOptions = {},
): void {
  const [loss, ...gradients] = found(peft, () => peft.loss(batch, options));
  const [again, ...others] = found(peft, () => reuse.loss(batch, options));
  if (exact && defaultBackend().exact) expect(again).toEqual(loss);
  else expect(worstExcess(again!, loss!, GRADIENTS)).toBeLessThanOrEqual(0);
  expect(others.map(({ length }) => length)).toEqual(gradients.map(({ length }) => length));
  others.forEach((values, i) => {
    if (values.length > 0) expect(worstExcess(values, gradients[i]!, GRADIENTS)).toBeLessThanOrEqual(0);
  });
}
