import { type Tensor, adamw } from "@neolog/tensor";
import { Optimizer, type OptimizerOptions, type ParameterGroup, type Update, check } from "./optimizer.ts";

export interface AdamWSettings extends OptimizerOptions {
  betas: readonly [number, number];
  eps: number;
  weight_decay: number;
  maximize: boolean;
  /** What weight decay pulls a parameter towards; null, the default, for 0. */
  decayToward: ((p: Tensor) => Tensor) | null;
}
export type AdamWOptions = Partial<AdamWSettings>;

/** Adam with decoupled weight decay, as torch.optim.AdamW. Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101 */
export class AdamW extends Optimizer<AdamWSettings> {
  constructor(params: readonly Tensor[] | readonly ParameterGroup<AdamWSettings>[], options: AdamWOptions = {}) {
    super(params, { ...DEFAULTS, ...options }, () => ["exp_avg", "exp_avg_sq"]);
    for (const { betas, eps, weight_decay } of this.groups) {
      const inRange = betas.every((beta) => beta >= 0 && beta < 1);
      check("AdamW", "betas", `[${betas.join(", ")}]`, inRange, "in [0, 1)");
      check("AdamW", "eps", eps, eps >= 0 && Number.isFinite(eps), "at least 0");
      check("AdamW", "weight_decay", weight_decay, weight_decay >= 0, "at least 0");
    }
  }

  protected update({ p, grad, step, averages, options, parameter, part }: Update<AdamWSettings>): void {
    const { exp_avg, exp_avg_sq } = averages as { exp_avg: Tensor; exp_avg_sq: Tensor };
    const { decayToward, weight_decay } = options;
    const toward = decayToward && weight_decay !== 0 ? part(decayToward(parameter)) : null;
    adamw({ p, grad, exp_avg, exp_avg_sq, toward }, { ...options, step });
  }
}

const DEFAULTS: AdamWSettings = {
  lr: 1e-3,
  rows: "all",
  betas: [0.9, 0.999],
  eps: 1e-8,
  weight_decay: 1e-2,
  maximize: false,
  decayToward: null,
};
