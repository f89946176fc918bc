import { type Tensor, zerosLike } from "@neolog/tensor";
import { Optimizer, type ParameterState, check, write } from "./optimizer.ts";

export interface AdamWOptions {
  lr?: number;
  betas?: readonly [number, number];
  eps?: number;
  weight_decay?: number;
  maximize?: boolean;
}

/** Adam with decoupled weight decay, as torch.optim.AdamW. Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101 */
export class AdamW extends Optimizer {
  readonly #options: Required<Omit<AdamWOptions, "lr">>;

  constructor(params: readonly Tensor[], { lr = 1e-3, ...options }: AdamWOptions = {}) {
    super(params, lr, ["exp_avg", "exp_avg_sq"]);
    this.#options = { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 1e-2, maximize: false, ...options };
    const { betas, eps, weight_decay } = this.#options;
    const inRange = betas.every((beta) => beta >= 0 && beta < 1);
    check("AdamW", "betas", `[${betas.join(", ")}]`, inRange, "in [0, 1)");
    check("AdamW", "eps", eps, eps >= 0 && Number.isFinite(eps), "at least 0");
    check("AdamW", "weight_decay", weight_decay, weight_decay >= 0, "at least 0");
  }

  protected update(p: Tensor, grad: Tensor, { step, averages }: ParameterState): void {
    const { betas, eps, weight_decay, maximize } = this.#options;
    const [beta1, beta2] = betas;
    const { exp_avg, exp_avg_sq } = averages as { exp_avg: Tensor; exp_avg_sq: Tensor };
    // constants of the run are written out: 1 − beta2 keeps the digits that a float32 operand would lose
    write(exp_avg, `a * ${beta1} ${maximize ? "-" : "+"} b * ${1 - beta1}`, exp_avg, grad);
    write(exp_avg_sq, `a * ${beta2} + b * b * ${1 - beta2}`, exp_avg_sq, grad);
    const direction = zerosLike(p);
    write(direction, `a / (sqrt(b) / c + ${eps})`, exp_avg, exp_avg_sq, Math.sqrt(1 - beta2 ** step));
    if (weight_decay !== 0) write(p, "a * b", p, 1 - this.lr * weight_decay);
    write(p, "a - b * c", p, direction, this.lr / (1 - beta1 ** step));
  }
}
