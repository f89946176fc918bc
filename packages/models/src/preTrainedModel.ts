import { checkpointUnless, lean } from "@neolog/autograd";
import type { FolderTarget } from "@neolog/checkpoint";
import { Module } from "@neolog/nn";
import { ShapeError, type Tensor } from "@neolog/tensor";
import type { GenerationConfig, PretrainedConfig } from "./config.ts";
import { type GradientCheckpointing, blockBudget, blockCount, checkedChoice } from "./gradientCheckpointing.ts";
import { resizeTokenEmbeddings } from "./resize.ts";
import { type SavePretrainedOptions, savePretrained } from "./savePretrained.ts";
import { keepTokenEmbeddings } from "./trim.ts";

/** What every model with a head over the vocabulary gives. */
export interface ModelOutput {
  /** [B, T, vocab] */
  readonly logits: Tensor;
  /** Mean cross entropy over the labels that count, or null without labels. */
  readonly loss: Tensor | null;
}

/** A block's result for x [B, T, hidden]. Blocks run through this: it keeps what the gradient reads, or x alone and runs the block again. */
export type Through = (x: Tensor, block: (x: Tensor) => Tensor) => Tensor;

/** Runs a block as it ran before, whatever has changed since. */
export type Rerun = <T>(run: () => T) => T;

/** A model built from config.json and named like its checkpoint: decoder, encoder or both. */
export abstract class PreTrainedModel<Inputs = never, Output extends ModelOutput = ModelOutput> extends Module {
  #config: PretrainedConfig;
  #generationConfig: GenerationConfig | null = null;
  #gradientCheckpointing: GradientCheckpointing = false;
  #rerunner: (() => Rerun) | null = null;

  constructor(config: PretrainedConfig) {
    super();
    this.#config = config;
  }

  /** Path of the input embedding. */
  abstract get embeddingPath(): string;
  /** Paths of the modules that share the embedding's table. */
  abstract get tiedPaths(): readonly string[];
  /** What a checkpoint may store although the model has it once: each such key, and the key whose value it must have. */
  get tiedKeys(): ReadonlyMap<string, string> {
    const table = `${this.embeddingPath}.weight`;
    return new Map(this.tiedPaths.map((path) => [this.checkpointName(`${path}.weight`), table]));
  }
  /** What checkpoints call the parameter `key`: the same, but where transformers renamed a module and kept its files. */
  checkpointName(key: string): string {
    return key;
  }
  /** Path of the output head, tied or not; null where the model has none. */
  abstract get headPath(): string | null;

  abstract override forward(inputs: Inputs): Output;

  /** The loss alone, [] : what training needs of `forward`. Throws ShapeError without labels. */
  loss(inputs: Inputs): Tensor {
    const { loss } = this.forward(inputs);
    if (!loss) throw new ShapeError("loss", "labels are needed, got none");
    return loss;
  }

  /** The config as loaded, with what resizing changed. */
  get config(): PretrainedConfig {
    return this.#config;
  }
  set config(config: PretrainedConfig) {
    this.#config = config;
  }

  /** What the checkpoint says of generation, or null where it says nothing. */
  get generationConfig(): GenerationConfig | null {
    return this.#generationConfig;
  }
  set generationConfig(config: GenerationConfig | null) {
    this.#generationConfig = config;
  }

  /**
   * Keep the input of each block alone for the gradient, and run the block again when its turn comes: memory of one block instead of
   * all, for one more forward pass; with `maxBytes`, of as many blocks as it takes. Chen et al. 2016,
   * https://arxiv.org/abs/1604.06174; off by default. Throws GradientCheckpointingError for a budget that is none.
   */
  get gradientCheckpointing(): GradientCheckpointing {
    return this.#gradientCheckpointing;
  }
  set gradientCheckpointing(choice: GradientCheckpointing) {
    this.#gradientCheckpointing = checkedChoice(choice);
  }

  /** Asked before a block runs that may run again: what adapters draw and whom they serve must then be as it was. */
  set rerunner(rerunner: (() => Rerun) | null) {
    this.#rerunner = rerunner;
  }

  /** How the blocks of one forward pass run. */
  protected get through(): Through {
    const choice = this.#gradientCheckpointing;
    if (choice === false) return (x, block) => lean(() => block(x));
    const fits = choice === true ? () => false : blockBudget(choice.maxBytes, blockCount(this.#config));
    return (x, block) => {
      const asBefore = this.#rerunner?.();
      let again = false;
      const run = (input: Tensor): Tensor => {
        if (again && asBefore) return asBefore(() => lean(() => block(input)));
        again = true;
        return lean(() => block(input));
      };
      return checkpointUnless((bytes) => fits(x, bytes), run, x);
    };
  }

  /** Grows or shrinks table and head to n rows; new rows are the mean of the old ones. */
  resizeTokenEmbeddings(n: number): void {
    resizeTokenEmbeddings(this, n);
  }

  /** Leaves only the rows of `keepIds` in table and head, in that order; see trim.ts. */
  keepTokenEmbeddings(keepIds: readonly number[]): void {
    keepTokenEmbeddings(this, keepIds);
  }

  /** Writes config.json, model.safetensors or its shards, and generation_config.json into a folder, or into memory. */
  savePretrained(dir: FolderTarget, options?: SavePretrainedOptions): Promise<void> {
    return savePretrained(this, dir, options);
  }
}
