import { lean } from "@neolog/autograd";
import type { LinearHead } from "@neolog/nn";
import {
  ShapeError,
  type Tensor,
  crossEntropy,
  div,
  intTensor,
  linearCrossEntropy,
  mul,
  reshape,
  slice,
  takeRows,
  tanh,
} from "@neolog/tensor";
import type { DecoderCache } from "./cachedAttention.ts";
import { CausalDecoding, type Decoding, type Prompt } from "./decoding.ts";
import { generate } from "./generate.ts";
import type { GenerateOptions } from "./generateOptions.ts";
import {
  type HostMatrix,
  type IdMatrix,
  causalMasks,
  defaultPositions,
  shiftedTargets,
  textStarts,
  toHost,
  toHostLike,
} from "./inputs.ts";
import { type ModelOutput, PreTrainedModel, type Through } from "./preTrainedModel.ts";
import { RaggedPositions } from "./raggedPositions.ts";
import type { TokenHead } from "./tokenModules.ts";

/** What a causal language model reads; names and meaning as in transformers. */
export interface ModelInputs {
  /** [B, T] */
  readonly input_ids: IdMatrix;
  /** [B, past + T]: 0 at padding, on either side. */
  readonly attention_mask?: IdMatrix | undefined;
  /**
   * [B, T]; counted from 0 (after the cache), padding included, when absent. Without mask and cache, a position that does not follow
   * the one before it begins another text, which sees nothing of the first: packed rows, see packSequences.
   */
  readonly position_ids?: IdMatrix | undefined;
  /** [B, T]; −100 counts for nothing. */
  readonly labels?: IdMatrix | undefined;
  readonly past_key_values?: DecoderCache | undefined;
  readonly output_hidden_states?: boolean | undefined;
  /** Compute logits of the last n positions alone; of all, when absent. Not together with labels. */
  readonly logits_to_keep?: number | undefined;
}

export interface CausalLMOutput extends ModelOutput {
  /** [B, T, vocab]; [B, logits_to_keep, vocab] where that was given. */
  readonly logits: Tensor;
  /** The input of every block and, last, the normed output of the final one; each [B, T, hidden]. */
  readonly hidden_states?: readonly Tensor[];
}

/** What every decoder needs of its inputs, worked out once. */
export interface DecoderInputs {
  /** B rows of T columns. */
  readonly ids: HostMatrix;
  /** [B · T] */
  readonly positions: Int32Array;
  /** What a layer's queries may attend to, int32 [B | 1, 1, T, S]: all before them, or the last `window` positions. */
  readonly maskOf: (window: number | null) => Tensor;
  readonly cache: DecoderCache | undefined;
  readonly through: Through;
}

/** A decoder with a language-modelling head. */
export abstract class CausalLM extends PreTrainedModel<ModelInputs, CausalLMOutput> {
  abstract override get headPath(): string;

  /** → logits [B, T, vocab] and, with labels, the loss. */
  forward(inputs: ModelInputs): CausalLMOutput {
    const { labels, logits_to_keep, output_hidden_states = false } = inputs;
    if (labels && logits_to_keep !== undefined) {
      throw new ShapeError("forward", "labels need the logits of all positions; leave logits_to_keep out");
    }
    const decoder = this.#decoderInputs(inputs);
    const { rows, columns } = decoder.ids;
    const hidden_states = this.hiddenStates(decoder, output_hidden_states);
    const last = hidden_states.at(-1)!;
    const logits = this.unembed(logits_to_keep === undefined ? last : slice(last, 1, -logits_to_keep));
    const loss = labels
      ? crossEntropy(
          reshape(logits, [rows * columns, logits.shape[2]!]),
          intTensor(shiftedTargets(toHostLike("labels", labels, rows, columns))),
        )
      : null;
    return { logits, loss, ...(output_hidden_states ? { hidden_states } : {}) };
  }

  /** The loss of `forward`, of the same value and gradients, from logits that never exist together: see `lossOf`. */
  override loss(inputs: ModelInputs): Tensor {
    const { labels } = inputs;
    if (!labels) throw new ShapeError("loss", "labels are needed, got none");
    const decoder = this.#decoderInputs(inputs);
    const { rows, columns } = decoder.ids;
    const targets = shiftedTargets(toHostLike("labels", labels, rows, columns));
    const hidden = this.hiddenStates(decoder, false).at(-1)!;
    return this.lossOf(reshape(hidden, [rows * columns, hidden.shape[2]!]), targets);
  }

  /** The normed output of the last block, [B, T, hidden]. */
  lastHiddenState(inputs: ModelInputs): Tensor {
    return this.hiddenStates(this.#decoderInputs(inputs), false).at(-1)!;
  }

  /** The positions that `forward` gives the tokens, [B · T]. */
  positionIds(inputs: ModelInputs): Int32Array {
    return this.#decoderInputs(inputs).positions;
  }

  /** What the head comes to where it is one product; null where it is more: then `lossOf` forms logits. */
  get linearHead(): (LinearHead & { readonly cap: number | null }) | null {
    const head = this.head.linearHead?.();
    return head && !head.bias ? { ...head, cap: this.logitCap } : null;
  }

  /**
   * Mean cross entropy of what the head makes of hidden [N, hidden], over the rows whose target is not −100; NaN where there is none.
   * The [N, vocab] logits are formed only where the head is more than one product: with LoRA, a bias, or samples that differ.
   */
  lossOf(hidden: Tensor, targets: Int32Array): Tensor {
    const counted = Int32Array.from(targets.keys()).filter((i) => targets[i] !== -100);
    const some = counted.length > 0 && counted.length < targets.length;
    return lean(() => {
      const x = some ? takeRows(hidden, counted) : hidden;
      const wanted = intTensor(some ? counted.map((i) => targets[i]!) : targets);
      const head = this.linearHead;
      if (!head) return crossEntropy(this.unembed(x), wanted);
      return linearCrossEntropy(x, head.weight, wanted, { override: head.override, softcap: head.cap });
    });
  }

  /** The input of every block and the normed output, each [B, T, hidden]; only the last one unless `keepAll`. */
  protected abstract hiddenStates(inputs: DecoderInputs, keepAll: boolean): readonly Tensor[];

  protected abstract get head(): TokenHead;

  /** Logits become cap·tanh(logits / cap), where there is one. */
  protected get logitCap(): number | null {
    return null;
  }

  /** The normed output [..., hidden] → logits [..., vocab] */
  protected unembed(x: Tensor): Tensor {
    const [logits, cap] = [this.head.forward(x), this.logitCap];
    return cap === null ? logits : mul(tanh(div(logits, cap)), cap);
  }

  /** A run over rows that begin with this prompt. */
  decoding(prompt: Prompt): Decoding {
    return new CausalDecoding(this, prompt);
  }

  /** Prompt and continuation of each row, as transformers' generate. */
  generate(options: GenerateOptions): Promise<number[][]> {
    return generate(this, options);
  }

  /** Positions where none are given: counted from 0 in each row, after `past` cached ones, padding included. [B · T] */
  protected positionsOf(ids: HostMatrix, past: number, _attentionMask: HostMatrix | null): Int32Array {
    return defaultPositions(ids, past);
  }

  #decoderInputs({ input_ids, attention_mask, position_ids, past_key_values }: ModelInputs): DecoderInputs {
    const ids = toHost("input_ids", input_ids);
    const ragged = past_key_values instanceof RaggedPositions ? past_key_values : null;
    const past = past_key_values instanceof RaggedPositions ? 0 : (past_key_values?.length ?? 0);
    const mask = attention_mask ? toHostLike("attention_mask", attention_mask, ids.rows, past + ids.columns) : null;
    const given = position_ids ? toHostLike("position_ids", position_ids, ids.rows, ids.columns).values : null;
    ragged?.check(ids, mask);
    const starts = given && !mask && !past_key_values ? textStarts(ids, given) : null;
    return {
      ids,
      positions: given ?? this.positionsOf(ids, past, mask),
      maskOf: ragged ? (window) => ragged.maskOf(window) : causalMasks(ids, past, mask, starts),
      cache: past_key_values,
      through: this.through,
    };
  }
}
