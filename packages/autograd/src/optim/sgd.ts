import { type Tensor, add, mul, neg } from "@neolog/tensor";
import { Optimizer, type ParameterState, check, write } from "./optimizer.ts";

export interface SgdOptions {
  lr?: number;
  momentum?: number;
  dampening?: number;
  weight_decay?: number;
  nesterov?: boolean;
  maximize?: boolean;
}

/** Stochastic gradient descent with momentum, as torch.optim.SGD. */
export class SGD extends Optimizer {
  readonly #options: Required<Omit<SgdOptions, "lr">>;

  constructor(params: readonly Tensor[], { lr = 1e-3, ...options }: SgdOptions = {}) {
    super(params, lr, options.momentum ? ["momentum_buffer"] : []);
    this.#options = { momentum: 0, dampening: 0, weight_decay: 0, nesterov: false, maximize: false, ...options };
    const { momentum, dampening, weight_decay, nesterov } = this.#options;
    check("SGD", "momentum", momentum, momentum >= 0, "at least 0");
    check("SGD", "weight_decay", weight_decay, weight_decay >= 0, "at least 0");
    check(
      "SGD",
      "nesterov",
      nesterov,
      !nesterov || (momentum > 0 && dampening === 0),
      "without dampening, with momentum",
    );
  }

  protected update(p: Tensor, grad: Tensor, { step, averages: { momentum_buffer } }: ParameterState): void {
    const { momentum, dampening, weight_decay, nesterov, maximize } = this.#options;
    let g = maximize ? neg(grad) : grad;
    if (weight_decay !== 0) g = add(g, mul(p, weight_decay));
    if (momentum_buffer) {
      if (step === 1) write(momentum_buffer, "a", g);
      else write(momentum_buffer, `a * ${momentum} + b * ${1 - dampening}`, momentum_buffer, g);
      g = nesterov ? add(g, mul(momentum_buffer, momentum)) : momentum_buffer;
    }
    write(p, "a - b * c", p, g, this.lr);
  }
}
