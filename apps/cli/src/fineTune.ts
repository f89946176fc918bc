import { AdamW, type ScheduleName, type TouchedRows, backward, prepareStep, schedule } from "@neolog/autograd";
import { CliError } from "./errors.ts";
import { type Batch, type BatchOptions, batchesOf } from "./batches.ts";
import { kindOf } from "./example.ts";
import { type PeftModel, ReusedLoss, originalRows, tokenParameters, touchedRows } from "@neolog/peft-tokens";
import { lossOf } from "./load.ts";
import type { Dataset, LanguageModel, Sequence } from "@neolog/models";
import { Scope } from "@neolog/tensor";

/** How rows are trained; everything that decides a run's numbers besides model, rows and data. */
export interface Recipe extends BatchOptions {
  readonly steps: number;
  readonly lr: number;
  readonly weight_decay: number;
  readonly schedule: ScheduleName;
  readonly warmup_steps: number;
  /** Absent in states that an earlier version wrote: all. */
  readonly row_updates?: (typeof ROW_UPDATES)[number];
  /** Absent likewise: zero. */
  readonly decay_toward?: (typeof DECAY_TARGETS)[number];
  /** Leave the rows as they are where a batch touches none of them; absent: no. */
  readonly skip_empty_steps?: boolean;
}
export const ROW_UPDATES = ["all", "lazy"] as const;
export const DECAY_TARGETS = ["zero", "original"] as const;

/** A run that can be left after any step and gone on with, to the same bits. */
export class FineTuning {
  readonly recipe: Recipe;
  /** Loss of every step so far. */
  readonly losses: number[];
  readonly optimizer: AdamW;
  /** Positions of the model's input in the steps since it was made that held a token, and that held none. */
  tokens = 0;
  padding = 0;
  readonly #peft: PeftModel<LanguageModel>;
  readonly #reused: ReusedLoss | null;
  readonly #batches: AsyncGenerator<Batch, void>;
  readonly #factor: (step: number) => number;
  /** The next batch, where it has been looked at. */
  #ahead: Batch | null = null;

  /** `losses` of the steps that are done. The loss is computed by `reused`, which the run disposes, or as ever where that is null. */
  constructor(
    peft: PeftModel<LanguageModel>,
    examples: Dataset<Sequence>,
    recipe: Recipe,
    { losses = [], reused = null }: { readonly losses?: readonly number[]; readonly reused?: ReusedLoss | null } = {},
  ) {
    this.recipe = recipe;
    this.losses = [...losses];
    this.#reused = reused;
    this.#batches = batchesOf(examples, recipe, kindOf(peft.getBaseModel())).steps(this.step);
    this.optimizer = new AdamW(tokenParameters(peft), {
      lr: recipe.lr,
      weight_decay: recipe.weight_decay,
      rows: recipe.row_updates ?? "all",
      decayToward: recipe.decay_toward === "original" ? originalRows(peft) : null,
    });
    this.#peft = peft;
    this.#factor = schedule(recipe.schedule, { warmupSteps: recipe.warmup_steps, totalSteps: recipe.steps });
  }

  /** Steps done. */
  get step(): number {
    return this.losses.length;
  }
  get done(): boolean {
    return this.step >= this.recipe.steps;
  }

  /** Compiles the next step's kernels, on backends that would do so in it; the step is what it would have been. */
  async prepare(): Promise<void> {
    const { inputs } = (this.#ahead = await this.#batch());
    const reused = this.#reused && new ReusedLoss(this.#peft, this.#reused.report); // what this one keeps was never computed
    try {
      const loss = () => reused?.loss(inputs) ?? lossOf(this.#peft, inputs);
      await prepareStep(this.optimizer, loss, this.#touched(inputs));
    } finally {
      reused?.dispose();
    }
  }

  /** One batch forward, backward and into the rows; → its loss before the update. Throws CliError where that is no number. */
  async next(): Promise<number> {
    const { inputs, tokens, padding } = await this.#batch();
    this.#ahead = null;
    using _scope = new Scope();
    this.optimizer.lr = this.recipe.lr * this.#factor(this.step);
    const loss = this.#reused?.loss(inputs) ?? lossOf(this.#peft, inputs);
    backward(loss);
    const { skip_empty_steps = false } = this.recipe;
    const touched = this.#touched(inputs);
    const isEmpty = touched && [...touched.values()].every((flags) => Array.from(flags).every((flag) => !flag));
    if (!(isEmpty && skip_empty_steps)) this.optimizer.step(touched);
    this.optimizer.zeroGrad();
    const value = await loss.item();
    if (!Number.isFinite(value)) {
      throw new CliError(`the loss must stay a number, got ${value} in step ${this.step + 1}; a lower --lr may help`);
    }
    this.losses.push(value);
    this.tokens += tokens;
    this.padding += padding;
    return value;
  }

  async #batch(): Promise<Batch> {
    return this.#ahead ?? (await this.#batches.next()).value!;
  }
  /** The rows that a batch touches, where the recipe asks. */
  #touched(inputs: Batch["inputs"]): TouchedRows | undefined {
    const { row_updates, skip_empty_steps } = this.recipe;
    return row_updates === "lazy" || skip_empty_steps ? touchedRows(this.#peft, inputs) : undefined;
  }

  dispose(): void {
    this.optimizer.dispose();
    this.#reused?.dispose();
  }
}
