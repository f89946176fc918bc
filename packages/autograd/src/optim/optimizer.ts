import {
  DTypeError,
  Scope,
  Tensor,
  assign,
  persist,
  slice,
  takeRows,
  tensor,
  untracked,
  zerosLike,
} from "@neolog/tensor";
import { type RowRun, type TouchedRows, runsOf } from "./rows.ts";

/** An optimizer was given options or a state that it cannot use. */
export class OptimizerError extends Error {
  override readonly name = "OptimizerError";
}

/** Options that every optimizer has; they may be changed between steps. */
export interface OptimizerOptions {
  lr: number;
  /**
   * "lazy": a step updates only the rows (along the first axis) that it is told were touched, weight decay and momentum included, and
   * every row counts its own steps. "all" by default, as torch.
   */
  rows: "all" | "lazy";
}

/** Parameters with options of their own; what is absent is as for all. */
export type ParameterGroup<O> = Partial<O> & { readonly params: readonly Tensor[] };

/** A parameter, or equal rows of all its parts, in one update. */
export interface Update<O> {
  readonly p: Tensor;
  readonly grad: Tensor;
  /** Counts this step, from 1 on. */
  readonly step: number;
  readonly averages: { readonly [name: string]: Tensor };
  readonly options: O;
  /** The parameter as it was given. */
  readonly parameter: Tensor;
  /** The rows of this update of a tensor as large as the parameter. */
  readonly part: (whole: Tensor) => Tensor;
}

/** What is remembered of one parameter: steps taken (of each row where they are lazy) and running averages of its shape. */
interface ParameterState {
  readonly steps: Int32Array;
  readonly averages: { readonly [name: string]: Tensor };
}

interface Group<O> {
  readonly params: Tensor[];
  readonly options: O;
  /** Of the averages that it keeps. */
  readonly names: readonly string[];
}

/** Updates parameters in place from their gradients. Parameters without a gradient are left alone, as in torch. Nothing is read back. */
export abstract class Optimizer<O extends OptimizerOptions = OptimizerOptions> {
  readonly #groups: readonly Group<O>[];
  readonly #state = new Map<Tensor, ParameterState>();

  /**
   * `namesOf` gives the names of the averages that a group keeps. Throws OptimizerError, and DTypeError for parameters stored in 16
   * bits.
   */
  constructor(
    params: readonly Tensor[] | readonly ParameterGroup<O>[],
    defaults: O,
    namesOf: (options: O) => readonly string[],
  ) {
    const groups = isGroups(params) ? params : [{ params } as ParameterGroup<O>];
    this.#groups = groups.map(({ params: own, ...given }) => {
      const options = { ...defaults, ...(given as unknown as Partial<O>) };
      return { params: [...own], options, names: namesOf(options) };
    });
    const optimizer = new.target.name;
    const all = this.params;
    const narrow = all.find((p) => p.dtype !== "float32" && p.dtype !== "float64");
    if (narrow) throw new DTypeError(optimizer, "parameters must be float32; cast and train a copy", narrow.dtype);
    if (all.length === 0) throw new OptimizerError(`${optimizer}: there must be a parameter to train, got none`);
    if (new Set(all).size < all.length)
      throw new OptimizerError(`${optimizer}: a parameter must be in one group, got one twice`);
    for (const { options, params: own } of this.#groups) {
      check(optimizer, "lr", options.lr, options.lr >= 0, "at least 0");
      const lazy = options.rows === "lazy";
      check(optimizer, "rows", options.rows, lazy || options.rows === "all", '"all" or "lazy"');
      if (lazy && own.some((p) => p.shape.length === 0))
        throw new OptimizerError(`${optimizer}: lazy parameters must have rows, got a scalar`);
    }
  }

  get params(): Tensor[] {
    return this.#groups.flatMap(({ params }) => params);
  }
  /** The options of each group, in the order of the groups. */
  get groups(): readonly O[] {
    return this.#groups.map(({ options }) => options);
  }
  /** The first group's rate. */
  get lr(): number {
    return this.#groups[0]!.options.lr;
  }
  /** Sets the rate of every group. */
  set lr(lr: number) {
    for (const { options } of this.#groups) options.lr = lr;
  }

  /**
   * One update of every parameter from its gradient, in place. `touched` says which rows of lazy parameters take part. Throws
   * OptimizerError, changing nothing, where it lacks one.
   */
  step(touched: TouchedRows = new Map()): void {
    const steps = this.#groups.flatMap((group) =>
      group.params.filter((p) => p.grad).map((p) => ({ group, p, mask: maskOf(group.options, p, touched) })),
    );
    untracked(() => {
      for (const { group, p, mask } of steps) {
        const { steps: counts, averages } = this.#stateOf(p, group);
        if (!mask) {
          counts[0]!++;
          this.#update(p, group, averages, { start: 0, end: counts.length, step: counts[0]! }, (t) => t);
          continue;
        }
        for (let row = 0; row < counts.length; row++) if (mask[row]) counts[row]!++;
        for (const run of runsOf(mask, counts))
          this.#update(p, group, averages, run, (t) => slice(t, 0, run.start, run.end));
      }
    });
  }

  /** Calls the kernels of a step with averages of its own, for `Backend.prepare`, under which they change nothing. */
  rehearse(touched?: TouchedRows): void {
    const kept = [...this.#state];
    this.#state.clear();
    try {
      this.step(touched);
    } finally {
      this.dispose();
      for (const [p, state] of kept) this.#state.set(p, state);
    }
  }

  #update(
    parameter: Tensor,
    { options, names }: Group<O>,
    averages: ParameterState["averages"],
    { step }: RowRun,
    part: (t: Tensor) => Tensor,
  ): void {
    using _ = new Scope();
    this.update({
      p: part(parameter),
      grad: part(parameter.grad!),
      step,
      averages: Object.fromEntries(names.map((name) => [name, part(averages[name]!)])),
      options,
      parameter,
      part,
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
   * What a later `loadStateDict` needs to go on bit for bit: `0.step` (one element, or one for each lazy row) and the averages, such as
   * `0.exp_avg`, of parameter 0, and so on; parameters that never had a gradient are absent. The averages are the living ones, not
   * copies.
   */
  stateDict(): Map<string, Tensor> {
    const entries = new Map<string, Tensor>();
    this.#each((p, { options, names }, i) => {
      const state = this.#state.get(p);
      if (!state) return;
      const shape = options.rows === "lazy" ? [state.steps.length] : [];
      entries.set(`${i}.step`, tensor(Float32Array.from(state.steps), shape, "float32", p.backend));
      for (const name of names) entries.set(`${i}.${name}`, state.averages[name]!);
    });
    return entries;
  }

  /**
   * Takes over copies of the tensors of a `stateDict()`. Throws OptimizerError, changing nothing, when keys are missing or unexpected
   * or sizes differ.
   */
  async loadStateDict(entries: ReadonlyMap<string, Tensor>): Promise<void> {
    const known: { p: Tensor; group: Group<O>; i: number }[] = [];
    this.#each((p, group, i) => entries.has(`${i}.step`) && known.push({ p, group, i }));
    const keys = known.flatMap(({ group, i }) => ["step", ...group.names].map((name) => `${i}.${name}`));
    const missing = keys.filter((key) => !entries.has(key));
    const unexpected = [...entries.keys()].filter((key) => !keys.includes(key));
    if (missing.length > 0 || unexpected.length > 0) {
      throw new OptimizerError(
        `loadStateDict: keys must be those of this optimizer's parameters, missing [${missing.join(", ")}], unexpected [${unexpected.join(", ")}]`,
      );
    }
    for (const { p, group, i } of known) {
      const { size } = entries.get(`${i}.step`)!;
      const needed = stepsOf(p, group);
      if (size !== needed) {
        throw new OptimizerError(
          `loadStateDict: ${i}.step must count the steps of ${needed}, got ${size}; rows: "lazy" counts for each row, "all" once`,
        );
      }
      const misshapen = group.names.find((name) => entries.get(`${i}.${name}`)!.shape.join() !== p.shape.join());
      if (misshapen !== undefined)
        throw new OptimizerError(`loadStateDict: ${i}.${misshapen} must be as large as its parameter (${p.size})`);
    }
    const steps = await Promise.all(known.map(({ i }) => entries.get(`${i}.step`)!.data()));
    this.dispose();
    known.forEach(({ p, group, i }, at) => {
      const state = this.#stateOf(p, group);
      state.steps.set(Int32Array.from(steps[at]!));
      for (const name of group.names) assign(state.averages[name]!, entries.get(`${i}.${name}`)!);
    });
  }

  /**
   * Puts a tensor in the place of parameter `p`, which may be gone. Row i of it goes on with what row slots[i] of `p` had, or anew where
   * that is negative; without slots all start anew. An optimizer that does not have `p` stays as it is.
   */
  replaceParameter(p: Tensor, replacement: Tensor, slots?: Int32Array): void {
    const group = this.#groups.find(({ params }) => params.includes(p));
    if (!group) return;
    group.params[group.params.indexOf(p)] = replacement;
    const state = this.#state.get(p);
    this.#state.delete(p);
    if (!state) return;
    if (slots) {
      using _ids = new Scope();
      const rows = (t: Tensor): Tensor => untracked(() => persist(takeRows(t, slots)));
      const averages = Object.fromEntries(group.names.map((name) => [name, rows(state.averages[name]!)]));
      const steps =
        group.options.rows === "lazy" ? slots.map((slot) => (slot < 0 ? 0 : state.steps[slot]!)) : state.steps;
      this.#state.set(replacement, { steps, averages });
    }
    for (const t of Object.values(state.averages)) t.dispose();
  }

  /** Frees the averages; the next step starts anew. */
  dispose(): void {
    for (const { averages } of this.#state.values()) for (const t of Object.values(averages)) t.dispose();
    this.#state.clear();
  }

  /** p −= …, in place. */
  protected abstract update(update: Update<O>): void;

  #each(f: (p: Tensor, group: Group<O>, i: number) => void): void {
    let i = 0;
    for (const group of this.#groups) for (const p of group.params) f(p, group, i++);
  }
  #stateOf(p: Tensor, group: Group<O>): ParameterState {
    let state = this.#state.get(p);
    if (!state) {
      const averages = Object.fromEntries(group.names.map((name) => [name, persist(zerosLike(p))]));
      state = { steps: new Int32Array(stepsOf(p, group)), averages };
      this.#state.set(p, state);
    }
    return state;
  }
}

/** How many counts of steps a parameter has. */
const stepsOf = (p: Tensor, { options }: Group<OptimizerOptions>): number =>
  options.rows === "lazy" ? p.shape[0]! : 1;

const isGroups = <O>(
  params: readonly Tensor[] | readonly ParameterGroup<O>[],
): params is readonly ParameterGroup<O>[] => params.length > 0 && !(params[0] instanceof Tensor);

/** Which rows of a parameter take part; null for all at once. */
function maskOf({ rows }: OptimizerOptions, p: Tensor, touched: TouchedRows): ArrayLike<number> | null {
  if (rows !== "lazy") return null;
  const mask = touched.get(p);
  if (mask && mask.length === p.shape[0]) return mask;
  const given = mask ? `${mask.length} rows` : "none";
  throw new OptimizerError(
    `step: rows: "lazy" must be told which of ${p.shape[0]} rows were touched, got ${given}; pass them: step(touched)`,
  );
}

/** Throws OptimizerError unless an option holds. */
export function check(optimizer: string, option: string, value: unknown, holds: boolean, mustBe: string): void {
  if (!holds) throw new OptimizerError(`${optimizer}: ${option} must be ${mustBe}, got ${String(value)}`);
}
