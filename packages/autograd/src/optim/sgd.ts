import { Scope, type Tensor, add, assign, mul, neg, persist, sub, untracked } from "@neolog/tensor";

export interface SgdOptions {
  lr: number;
  momentum?: number;
  dampening?: number;
  weight_decay?: number;
  nesterov?: boolean;
  maximize?: boolean;
}

/** Stochastic gradient descent with momentum, as torch.optim.SGD. Parameters without a gradient are left alone. */
export class SGD {
  lr: number;
  readonly #params: readonly Tensor[];
  readonly #options: Required<Omit<SgdOptions, "lr">>;
  readonly #momentum = new Map<Tensor, Tensor>();

  constructor(params: readonly Tensor[], { lr, ...options }: SgdOptions) {
    this.lr = lr;
    this.#params = params;
    this.#options = { momentum: 0, dampening: 0, weight_decay: 0, nesterov: false, maximize: false, ...options };
  }

  step(): void {
    untracked(() => {
      for (const p of this.#params) if (p.grad) this.#update(p, p.grad);
    });
  }
  zeroGrad(): void {
    for (const p of this.#params) p.grad = null;
  }

  #update(p: Tensor, grad: Tensor): void {
    using _step = new Scope();
    const { momentum, dampening, weight_decay, nesterov, maximize } = this.#options;
    let g = maximize ? neg(grad) : grad;
    if (weight_decay !== 0) g = add(g, mul(p, weight_decay));
    if (momentum !== 0) {
      const known = this.#momentum.get(p);
      const buffer = known ?? persist(mul(g, 1));
      if (known) assign(known, add(mul(known, momentum), mul(g, 1 - dampening)));
      else this.#momentum.set(p, buffer);
      g = nesterov ? add(g, mul(buffer, momentum)) : buffer;
    }
    assign(p, sub(p, mul(g, this.lr)));
  }
}
