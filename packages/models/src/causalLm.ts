import { Module } from "@neolog/nn";
import { type Tensor, crossEntropy, reshape } from "@neolog/tensor";
import type { PretrainedConfig } from "./config.ts";
import { type GenerateOptions, generate } from "./generate.ts";
import {
  type HostMatrix,
  type IdMatrix,
  causalMask,
  defaultPositions,
  shiftedTargets,
  toHost,
  toHostLike,
} from "./inputs.ts";
import type { KvCache } from "./kvCache.ts";
import { savePretrained } from "./pretrained.ts";
import { resizeTokenEmbeddings } from "./resize.ts";

/** What a causal language model reads; names and meaning as in transformers. */
export interface ModelInputs {
  /** [B, T] */
  readonly input_ids: IdMatrix;
  /** [B, past + T]: 0 at padding, on either side. */
  readonly attention_mask?: IdMatrix | undefined;
  /** [B, T]; counted from 0 (after the cache), padding included, when absent. */
  readonly position_ids?: IdMatrix | undefined;
  /** [B, T]; −100 counts for nothing. */
  readonly labels?: IdMatrix | undefined;
  readonly past_key_values?: KvCache | undefined;
  readonly output_hidden_states?: boolean | undefined;
}

export interface CausalLMOutput {
  /** [B, T, vocab] */
  readonly logits: Tensor;
  /** Mean cross entropy over the labels that count, or null without labels. */
  readonly loss: Tensor | null;
  /** The input of every block and, last, the normed output of the final one; each [B, T, hidden]. */
  readonly hidden_states?: readonly Tensor[];
}

/** What every decoder needs of its inputs, worked out once. */
export interface DecoderInputs {
  /** B rows of T columns. */
  readonly ids: HostMatrix;
  /** [B · T] */
  readonly positions: Int32Array;
  /** int32 [B | 1, 1, T, S] */
  readonly mask: Tensor;
  readonly cache: KvCache | undefined;
}

/** A decoder with a language-modelling head, built from config.json, named like its checkpoint. */
export abstract class CausalLM extends Module {
  /** The config as loaded, with what resizing changed. */
  abstract get config(): PretrainedConfig;
  abstract set config(config: PretrainedConfig);
  /** Path of the input embedding. */
  abstract get embeddingPath(): string;
  /** Paths of the modules that share the embedding's table. */
  abstract get tiedPaths(): readonly string[];
  /** Path of the output head, tied or not. */
  abstract get headPath(): string;

  /** → logits [B, T, vocab] and, with labels, the loss. */
  forward(inputs: ModelInputs): CausalLMOutput {
    const decoder = decoderInputs(inputs);
    const { logits, hidden_states } = this.decode(decoder, inputs.output_hidden_states === true);
    const { rows, columns } = decoder.ids;
    const loss = inputs.labels
      ? crossEntropy(
          reshape(logits, [rows * columns, logits.shape[2]!]),
          shiftedTargets(toHostLike("labels", inputs.labels, rows, columns)),
        )
      : null;
    return { logits, loss, ...(inputs.output_hidden_states ? { hidden_states } : {}) };
  }

  /** The architecture: embedding, blocks, norm, head. `hidden_states` is empty unless asked for. */
  protected abstract decode(
    inputs: DecoderInputs,
    keepHiddenStates: boolean,
  ): { readonly logits: Tensor; readonly hidden_states: readonly Tensor[] };

  /** Prompt and continuation of each row, as transformers' generate. */
  generate(options: GenerateOptions): Promise<number[][]> {
    return generate(this, options);
  }

  /** Grows or shrinks table and head to n rows; new rows are the mean of the old ones. */
  resizeTokenEmbeddings(n: number): void {
    resizeTokenEmbeddings(this, n);
  }

  /** Writes config.json, model.safetensors and generation_config.json into a folder. */
  savePretrained(dir: string): Promise<void> {
    return savePretrained(this, dir);
  }
}

function decoderInputs({ input_ids, attention_mask, position_ids, past_key_values }: ModelInputs): DecoderInputs {
  const ids = toHost("input_ids", input_ids);
  const past = past_key_values?.length ?? 0;
  const mask = attention_mask ? toHostLike("attention_mask", attention_mask, ids.rows, past + ids.columns) : null;
  return {
    ids,
    positions: position_ids
      ? toHostLike("position_ids", position_ids, ids.rows, ids.columns).values
      : defaultPositions(ids, past),
    mask: causalMask(ids, past, mask),
    cache: past_key_values,
  };
}
