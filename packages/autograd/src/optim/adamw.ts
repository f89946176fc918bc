import {
  Scope,
  type Tensor,
  add,
  assign,
  div,
  mul,
  neg,
  persist,
  sqrt,
  square,
  sub,
  untracked,
  zerosLike,
} from "@neolog/tensor";

export interface AdamWOptions {
  lr?: number;
  betas?: readonly [number, number];
  eps?: number;
  weight_decay?: number;
  maximize?: boolean;
}

/** What AdamW remembers of one parameter. */
export interface AdamWState {
  step: number;
  readonly exp_avg: Tensor;
  readonly exp_avg_sq: Tensor;
}

/**
 * Adam with decoupled weight decay, as torch.optim.AdamW. Parameters without a gradient are left alone.
 * Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101
 */
export class AdamW {
  lr: number;
  readonly params: readonly Tensor[];
  readonly #options: Required<Omit<AdamWOptions, "lr">>;
  readonly #state = new Map<Tensor, AdamWState>();

  constructor(params: readonly Tensor[], { lr = 1e-3, ...options }: AdamWOptions = {}) {
    this.lr = lr;
    this.params = params;
    this.#options = { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 1e-2, maximize: false, ...options };
  }

  /** One update of every parameter from its gradient, in place. */
  step(): void {
    untracked(() => {
      for (const p of this.params) if (p.grad) this.#update(p, p.grad);
    });
  }
  zeroGrad(): void {
    for (const p of this.params) p.grad = null;
  }
  /** The state of a parameter, zero before its first step; write into its tensors to resume. */
  stateOf(p: Tensor): AdamWState {
    let state = this.#state.get(p);
    if (!state) {
      state = { step: 0, exp_avg: persist(zerosLike(p)), exp_avg_sq: persist(zerosLike(p)) };
      this.#state.set(p, state);
    }
    return state;
  }
  dispose(): void {
    for (const { exp_avg, exp_avg_sq } of this.#state.values()) {
      exp_avg.dispose();
      exp_avg_sq.dispose();
    }
    this.#state.clear();
  }

  #update(p: Tensor, grad: Tensor): void {
    using _step = new Scope();
    const { betas, eps, weight_decay, maximize } = this.#options;
    const [beta1, beta2] = betas;
    const state = this.stateOf(p);
    const g = maximize ? neg(grad) : grad;
    state.step++;
    assign(state.exp_avg, add(mul(state.exp_avg, beta1), mul(g, 1 - beta1)));
    assign(state.exp_avg_sq, add(mul(state.exp_avg_sq, beta2), mul(square(g), 1 - beta2)));
    const denominator = add(div(sqrt(state.exp_avg_sq), Math.sqrt(1 - beta2 ** state.step)), eps);
    const stepSize = this.lr / (1 - beta1 ** state.step);
    assign(p, sub(mul(p, 1 - this.lr * weight_decay), mul(div(state.exp_avg, denominator), stepSize)));
  }
}
