import { type Tensor, add, mul, neg, writeExpression } from "@neolog/tensor";
import { Optimizer, type OptimizerOptions, type ParameterGroup, type Update, check } from "./optimizer.ts";

export interface SgdSettings extends OptimizerOptions {
  momentum: number;
  dampening: number;
  weight_decay: number;
  nesterov: boolean;
  maximize: boolean;
}
export type SgdOptions = Partial<SgdSettings>;

/** Stochastic gradient descent with momentum, as torch.optim.SGD. */
export class SGD extends Optimizer<SgdSettings> {
  constructor(params: readonly Tensor[] | readonly ParameterGroup<SgdSettings>[], options: SgdOptions = {}) {
    super(params, { ...DEFAULTS, ...options }, ({ momentum }) => (momentum ? ["momentum_buffer"] : []));
    for (const { momentum, dampening, weight_decay, nesterov } of this.groups) {
      check("SGD", "momentum", momentum, momentum >= 0, "at least 0");
      check("SGD", "weight_decay", weight_decay, weight_decay >= 0, "at least 0");
      const allowed = !nesterov || (momentum > 0 && dampening === 0);
      check("SGD", "nesterov", nesterov, allowed, "without dampening, with momentum");
    }
  }

  protected update({ p, grad, step, averages: { momentum_buffer }, options }: Update<SgdSettings>): void {
    const { lr, momentum, dampening, weight_decay, nesterov, maximize } = options;
    let g = maximize ? neg(grad) : grad;
    if (weight_decay !== 0) g = add(g, mul(p, weight_decay));
    if (momentum_buffer) {
      if (step === 1) writeExpression(momentum_buffer, "a", g);
      else writeExpression(momentum_buffer, `a * ${momentum} + b * ${1 - dampening}`, momentum_buffer, g);
      g = nesterov ? add(g, mul(momentum_buffer, momentum)) : momentum_buffer;
    }
    writeExpression(p, "a - b * c", p, g, lr);
  }
}

const DEFAULTS: SgdSettings = {
  lr: 1e-3,
  rows: "all",
  momentum: 0,
  dampening: 0,
  weight_decay: 0,
  nesterov: false,
  maximize: false,
};
