import { AdamW, type ScheduleName, backward, schedule } from "@neolog/autograd";
import { CliError } from "./errors.ts";
import { type Example, collate } from "./example.ts";
import { type PeftModel, originalRows, tokenParameters, touchedRows } from "@neolog/peft-tokens";
import { lossOf } from "./load.ts";
import type { LanguageModel } from "@neolog/models";
import { Random, Scope } from "@neolog/tensor";

/** How rows are trained; everything that decides a run's numbers besides model, rows and data. */
export interface Recipe {
  readonly steps: number;
  readonly lr: number;
  readonly weight_decay: number;
  readonly batch_size: number;
  readonly schedule: ScheduleName;
  readonly warmup_steps: number;
  readonly shuffle: boolean;
  readonly seed: number;
  /** Absent in states that an earlier version wrote: all. */
  readonly row_updates?: (typeof ROW_UPDATES)[number];
  /** Absent likewise: zero. */
  readonly decay_toward?: (typeof DECAY_TARGETS)[number];
}
export const ROW_UPDATES = ["all", "lazy"] as const;
export const DECAY_TARGETS = ["zero", "original"] as const;

/** Which examples step `step` sees: each epoch all of them, in an order that depends on seed and epoch only. */
export function batchAt(step: number, examples: number, { batch_size, shuffle, seed }: Recipe): number[] {
  const perEpoch = Math.ceil(examples / batch_size);
  const epoch = Math.floor(step / perEpoch);
  const start = (step % perEpoch) * batch_size;
  const order = shuffle
    ? new Random(seed, epoch * examples).permutation(examples)
    : Array.from({ length: examples }, (_, i) => i);
  return order.slice(start, start + batch_size);
}

/** A run that can be left after any step and gone on with, to the same bits. */
export class FineTuning {
  readonly recipe: Recipe;
  /** Loss of every step so far. */
  readonly losses: number[];
  readonly optimizer: AdamW;
  readonly #peft: PeftModel<LanguageModel>;
  readonly #examples: readonly Example[];
  readonly #factor: (step: number) => number;

  constructor(
    peft: PeftModel<LanguageModel>,
    examples: readonly Example[],
    recipe: Recipe,
    losses: readonly number[] = [],
  ) {
    this.recipe = recipe;
    this.losses = [...losses];
    this.optimizer = new AdamW(tokenParameters(peft), {
      lr: recipe.lr,
      weight_decay: recipe.weight_decay,
      rows: recipe.row_updates ?? "all",
      decayToward: recipe.decay_toward === "original" ? originalRows(peft) : null,
    });
    this.#peft = peft;
    this.#examples = examples;
    this.#factor = schedule(recipe.schedule, { warmupSteps: recipe.warmup_steps, totalSteps: recipe.steps });
  }

  /** Steps done. */
  get step(): number {
    return this.losses.length;
  }
  get done(): boolean {
    return this.step >= this.recipe.steps;
  }

  /** One batch forward, backward and into the rows; → its loss before the update. Throws CliError where that is no number. */
  async next(): Promise<number> {
    using _scope = new Scope();
    const batch = batchAt(this.step, this.#examples.length, this.recipe).map((i) => this.#examples[i]!);
    this.optimizer.lr = this.recipe.lr * this.#factor(this.step);
    const inputs = collate(batch);
    const loss = lossOf(this.#peft, inputs);
    backward(loss);
    this.optimizer.step(touchedRows(this.#peft, inputs));
    this.optimizer.zeroGrad();
    const value = await loss.item();
    if (!Number.isFinite(value)) {
      throw new CliError(`the loss must stay a number, got ${value} in step ${this.step + 1}; a lower --lr may help`);
    }
    this.losses.push(value);
    return value;
  }

  dispose(): void {
    this.optimizer.dispose();
  }
}
