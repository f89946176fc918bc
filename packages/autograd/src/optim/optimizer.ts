import {
  DTypeError,
  type Operand,
  Scope,
  type Tensor,
  assign,
  expandLayout,
  persist,
  tensor,
  untracked,
  zerosLike,
} from "@neolog/tensor";

/** An optimizer was given options or a state that it cannot use. */
export class OptimizerError extends Error {
  override readonly name = "OptimizerError";
}

/** What an optimizer remembers of one parameter: steps taken and running averages of the parameter's shape. */
export interface ParameterState {
  step: number;
  readonly averages: { readonly [name: string]: Tensor };
}

/** Updates parameters in place from their gradients. Parameters without a gradient are left alone, as in torch. Nothing is read back. */
export abstract class Optimizer {
  lr: number;
  readonly params: readonly Tensor[];
  readonly #names: readonly string[];
  readonly #state = new Map<Tensor, ParameterState>();

  /** `names` are those of the averages that the optimizer keeps. Throws DTypeError for parameters stored in 16 bits. */
  constructor(params: readonly Tensor[], lr: number, names: readonly string[]) {
    const narrow = params.find((p) => p.dtype !== "float32" && p.dtype !== "float64");
    if (narrow)
      throw new DTypeError(new.target.name, "parameters must be float32; cast and train a copy", narrow.dtype);
    if (params.length === 0)
      throw new OptimizerError(`${new.target.name}: there must be a parameter to train, got none`);
    check(new.target.name, "lr", lr, lr >= 0, "at least 0");
    this.lr = lr;
    this.params = params;
    this.#names = names;
  }

  /** One update of every parameter from its gradient, in place. */
  step(): void {
    untracked(() => {
      for (const p of this.params) {
        if (!p.grad) continue;
        using _ = new Scope();
        const state = this.#stateOf(p);
        state.step++;
        this.update(p, p.grad, state);
      }
    });
  }

  /** Disposes the gradients. */
  zeroGrad(): void {
    for (const p of this.params) {
      p.grad?.dispose();
      p.grad = null;
    }
  }

  /**
   * What a later `loadStateDict` needs to go on bit for bit: `0.step` (one element) and the averages, such as `0.exp_avg`, of
   * parameter 0, and so on; parameters that never had a gradient are absent. The averages are the living ones, not copies.
   */
  stateDict(): Map<string, Tensor> {
    const entries = new Map<string, Tensor>();
    this.params.forEach((p, i) => {
      const state = this.#state.get(p);
      if (!state) return;
      entries.set(`${i}.step`, tensor([state.step], [], "float32", p.backend));
      for (const name of this.#names) entries.set(`${i}.${name}`, state.averages[name]!);
    });
    return entries;
  }

  /** Takes over copies of the tensors of a `stateDict()`. Throws OptimizerError, changing nothing, when keys are missing or unexpected. */
  async loadStateDict(entries: ReadonlyMap<string, Tensor>): Promise<void> {
    const known = this.params.flatMap((_, i) => (entries.has(`${i}.step`) ? [i] : []));
    const keys = known.flatMap((i) => ["step", ...this.#names].map((name) => `${i}.${name}`));
    const missing = keys.filter((key) => !entries.has(key));
    const unexpected = [...entries.keys()].filter((key) => !keys.includes(key));
    if (missing.length > 0 || unexpected.length > 0) {
      throw new OptimizerError(
        `loadStateDict: keys must be those of this optimizer's parameters, missing [${missing.join(", ")}], unexpected [${unexpected.join(", ")}]`,
      );
    }
    const steps = await Promise.all(known.map((i) => entries.get(`${i}.step`)!.item()));
    this.dispose();
    known.forEach((i, at) => {
      const state = this.#stateOf(this.params[i]!);
      state.step = steps[at]!;
      for (const name of this.#names) assign(state.averages[name]!, entries.get(`${i}.${name}`)!);
    });
  }

  /** Frees the averages; the next step starts anew. */
  dispose(): void {
    for (const { averages } of this.#state.values()) for (const t of Object.values(averages)) t.dispose();
    this.#state.clear();
  }

  /** p −= …, in place; `state.step` counts this step, from 1 on. */
  protected abstract update(p: Tensor, grad: Tensor, state: ParameterState): void;

  #stateOf(p: Tensor): ParameterState {
    let state = this.#state.get(p);
    if (!state) {
      state = { step: 0, averages: Object.fromEntries(this.#names.map((name) => [name, persist(zerosLike(p))])) };
      this.#state.set(p, state);
    }
    return state;
  }
}

/** target = expression(a, b, c) in place and in one pass; operands are numbers or broadcast to target, which may be among them. */
export function write(target: Tensor, expression: string, ...operands: readonly Operand[]): void {
  const views = operands.map((x) => {
    if (typeof x === "number") return x;
    const { buffer, layout } = x.view("step");
    return { buffer, layout: expandLayout(layout, target.shape) };
  });
  target.backend.pointwise(expression, target.view("step"), views);
}

/** Throws OptimizerError unless an option holds. */
export function check(optimizer: string, option: string, value: unknown, holds: boolean, mustBe: string): void {
  if (!holds) throw new OptimizerError(`${optimizer}: ${option} must be ${mustBe}, got ${String(value)}`);
}
