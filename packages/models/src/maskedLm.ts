import { type Tensor, crossEntropy, intTensor, reshape } from "@neolog/tensor";
import { type HostMatrix, type IdMatrix, defaultPositions, paddingMask, toHost, toHostLike } from "./inputs.ts";
import { type ModelOutput, PreTrainedModel, type Through } from "./preTrainedModel.ts";

/** What a masked language model reads; names and meaning as in transformers. */
export interface MaskedLMInputs {
  /** [B, T] */
  readonly input_ids: IdMatrix;
  /** [B, T]: 0 at padding. */
  readonly attention_mask?: IdMatrix | undefined;
  /** [B, T]: the segment of each token; 0 everywhere when absent. */
  readonly token_type_ids?: IdMatrix | undefined;
  /** [B, T]; counted from 0, padding included, when absent. */
  readonly position_ids?: IdMatrix | undefined;
  /** [B, T]: the token that stood at each position; −100 counts for nothing. */
  readonly labels?: IdMatrix | undefined;
  readonly output_hidden_states?: boolean | undefined;
}

export interface MaskedLMOutput extends ModelOutput {
  /** The input of every block and, last, the output of the final one; each [B, T, hidden]. */
  readonly hidden_states?: readonly Tensor[];
}

/** What an encoder needs of its inputs, worked out once. */
export interface EncoderInputs {
  /** B rows of T columns. */
  readonly ids: HostMatrix;
  /** [B · T] */
  readonly tokenTypes: Int32Array;
  /** [B · T] */
  readonly positions: Int32Array;
  /** int32 [B | 1, 1, 1, T] */
  readonly mask: Tensor;
  readonly through: Through;
}

/** A bidirectional encoder with a head that says which token stood at each position. */
export abstract class MaskedLM extends PreTrainedModel<MaskedLMInputs, MaskedLMOutput> {
  abstract override get headPath(): string;

  /** → logits [B, T, vocab] and, with labels, the loss: position t predicts label t. */
  forward({ labels, output_hidden_states = false, ...inputs }: MaskedLMInputs): MaskedLMOutput {
    const encoder = { ...encoderInputs(inputs), through: this.through };
    const { rows, columns } = encoder.ids;
    const hidden_states = this.hiddenStates(encoder, output_hidden_states);
    const logits = this.unembed(hidden_states.at(-1)!);
    const loss = labels
      ? crossEntropy(
          reshape(logits, [rows * columns, logits.shape[2]!]),
          intTensor(toHostLike("labels", labels, rows, columns).values),
        )
      : null;
    return { logits, loss, ...(output_hidden_states ? { hidden_states } : {}) };
  }

  /** The input of every block and the output, each [B, T, hidden]; only the last one unless `keepAll`. */
  protected abstract hiddenStates(inputs: EncoderInputs, keepAll: boolean): readonly Tensor[];

  /** The output [B, T, hidden] → logits [B, T, vocab] */
  protected abstract unembed(x: Tensor): Tensor;
}

function encoderInputs({
  input_ids,
  attention_mask,
  token_type_ids,
  position_ids,
}: MaskedLMInputs): Omit<EncoderInputs, "through"> {
  const ids = toHost("input_ids", input_ids);
  const { rows, columns } = ids;
  return {
    ids,
    tokenTypes: token_type_ids
      ? toHostLike("token_type_ids", token_type_ids, rows, columns).values
      : new Int32Array(rows * columns),
    positions: position_ids ? toHostLike("position_ids", position_ids, rows, columns).values : defaultPositions(ids, 0),
    mask: paddingMask(ids, attention_mask ? toHostLike("attention_mask", attention_mask, rows, columns) : null),
  };
}
