import { ShapeError, type Tensor, crossEntropy, formatShape, intTensor, reshape, slice } from "@neolog/tensor";
import { ModelConfigError } from "./config.ts";
import type { Decoding, Prompt } from "./decoding.ts";
import { generate } from "./generate.ts";
import type { GenerateOptions } from "./generateOptions.ts";
import { Seq2SeqDecoding } from "./seq2SeqDecoding.ts";
import type { EncoderDecoderCache } from "./encoderDecoderCache.ts";
import { type HostMatrix, type IdMatrix, causalMask, paddingMask, toHost, toHostLike } from "./inputs.ts";
import { type ModelOutput, PreTrainedModel } from "./preTrainedModel.ts";

/** What an encoder-decoder reads; names and meaning as in transformers. */
export interface Seq2SeqLMInputs {
  /** [B, S], for the encoder; not needed beside encoder_outputs. */
  readonly input_ids?: IdMatrix | undefined;
  /** [B, S]: 0 at padding of the encoder's input. */
  readonly attention_mask?: IdMatrix | undefined;
  /** [B, T]; the labels one place to the right when absent. */
  readonly decoder_input_ids?: IdMatrix | undefined;
  /** [B, past + T]: 0 at padding of the decoder's input. */
  readonly decoder_attention_mask?: IdMatrix | undefined;
  /** [B, T]: the token that follows each of the decoder's; −100 counts for nothing. */
  readonly labels?: IdMatrix | undefined;
  /** The encoder's output [B, S, hidden], where it is known already. */
  readonly encoder_outputs?: Tensor | undefined;
  readonly past_key_values?: EncoderDecoderCache | undefined;
  readonly output_hidden_states?: boolean | undefined;
  /** Compute logits of the last n positions alone; of all, when absent. Not together with labels. */
  readonly logits_to_keep?: number | undefined;
}

export interface Seq2SeqLMOutput extends ModelOutput {
  /** The encoder's normed output [B, S, hidden]. */
  readonly encoder_last_hidden_state: Tensor;
  /** The input of every block and, last, the normed output; each [B, S, hidden]. None where encoder_outputs was given. */
  readonly encoder_hidden_states?: readonly Tensor[];
  /** The same of the decoder, each [B, T, hidden]. */
  readonly decoder_hidden_states?: readonly Tensor[];
}

/** What the decoder's side needs, worked out once. */
export interface Seq2SeqDecoderInputs {
  /** B rows of T columns. */
  readonly ids: HostMatrix;
  /** int32 [B | 1, 1, T, past + T] */
  readonly mask: Tensor;
  /** The encoder's output [B, S, hidden]. */
  readonly encoded: Tensor;
  /** int32 [B | 1, 1, 1, S] */
  readonly encodedMask: Tensor;
  readonly cache: EncoderDecoderCache | undefined;
}

/** An encoder, and a decoder that reads its output, with a language-modelling head. */
export abstract class Seq2SeqLM extends PreTrainedModel<Seq2SeqLMInputs, Seq2SeqLMOutput> {
  abstract override get headPath(): string;
  /** The token that stands before each label, or null. */
  abstract get decoderStartTokenId(): number | null;
  /** What stands for a label of −100 in the decoder's input, or null. */
  abstract get padTokenId(): number | null;

  /** → logits [B, T, vocab] and, with labels, the loss: the decoder's position t predicts label t. */
  forward(inputs: Seq2SeqLMInputs): Seq2SeqLMOutput {
    const { labels, past_key_values, logits_to_keep, output_hidden_states: keepAll = false } = inputs;
    if (labels && logits_to_keep !== undefined)
      throw new ShapeError("forward", "labels need the logits of all positions; leave logits_to_keep out");
    const ids = this.#decoderIds(inputs);
    const { states, encoded, encodedMask } = this.#encoded(inputs, ids.rows, keepAll);
    const past = past_key_values?.length ?? 0;
    const { decoder_attention_mask: given } = inputs;
    const attended = given ? toHostLike("decoder_attention_mask", given, ids.rows, past + ids.columns) : null;
    const mask = causalMask(ids, past, attended, null);
    const decoded = this.decode({ ids, mask, encoded, encodedMask, cache: past_key_values }, keepAll);
    const last = decoded.at(-1)!;
    const logits = this.unembed(logits_to_keep === undefined ? last : slice(last, 1, -logits_to_keep));
    const loss = labels
      ? crossEntropy(
          reshape(logits, [ids.rows * ids.columns, logits.shape[2]!]),
          intTensor(toHostLike("labels", labels, ids.rows, ids.columns).values),
        )
      : null;
    return {
      logits,
      loss,
      encoder_last_hidden_state: encoded,
      ...(keepAll && states ? { encoder_hidden_states: states } : {}),
      ...(keepAll ? { decoder_hidden_states: decoded } : {}),
    };
  }

  /** The input of every block and the normed output, each [B, S, hidden]; only the last one unless `keepAll`. */
  protected abstract encode(ids: HostMatrix, mask: Tensor, keepAll: boolean): readonly Tensor[];

  /** The same of the decoder, each [B, T, hidden]. */
  protected abstract decode(inputs: Seq2SeqDecoderInputs, keepAll: boolean): readonly Tensor[];

  /** The decoder's normed output [B, n, hidden] → logits [B, n, vocab] */
  protected abstract unembed(x: Tensor): Tensor;

  /** A run over rows whose encoder reads this prompt. Throws ModelConfigError where no start token is known. */
  decoding(prompt: Prompt): Decoding {
    const start = this.generationConfig?.decoder_start_token_id ?? this.decoderStartTokenId;
    return new Seq2SeqDecoding(this, prompt, this.#needed("decoder_start_token_id", start, "to generate"));
  }

  /** The decoder's start token and continuation of each row, as transformers' generate. */
  generate(options: GenerateOptions): Promise<number[][]> {
    return generate(this, options);
  }

  /** decoder_input_ids, or the labels one place to the right. */
  #decoderIds({ decoder_input_ids, labels }: Seq2SeqLMInputs): HostMatrix {
    if (decoder_input_ids) return toHost("decoder_input_ids", decoder_input_ids);
    if (labels) return this.shiftRight(toHost("labels", labels));
    throw new ShapeError("forward", "decoder_input_ids or labels are needed beside the encoder's input_ids");
  }

  /** Labels [B, T] → the decoder's input: the start token, then all labels but the last. Throws ModelConfigError. */
  shiftRight({ values, rows, columns }: HostMatrix): HostMatrix {
    const purpose = "to make the decoder's input from labels";
    const start = this.#needed("decoder_start_token_id", this.decoderStartTokenId, purpose);
    const shifted = new Int32Array(values.length);
    for (let i = 0; i < values.length; i++) {
      const label = values[i - 1]!;
      if (i % columns === 0) shifted[i] = start;
      else shifted[i] = label === -100 ? this.#needed("pad_token_id", this.padTokenId, purpose) : label;
    }
    return { values: shifted, rows, columns };
  }

  #needed(key: string, id: number | null, purpose: string): number {
    if (id !== null) return id;
    throw new ModelConfigError("config.json", key, `must be set ${purpose}, found none`);
  }

  /** The encoder's output, computed or given, and what of it may be attended to. */
  #encoded({ input_ids, attention_mask, encoder_outputs }: Seq2SeqLMInputs, rows: number, keepAll: boolean) {
    const maskOf = (ids: HostMatrix): Tensor =>
      paddingMask(ids, attention_mask ? toHostLike("attention_mask", attention_mask, ids.rows, ids.columns) : null);
    if (encoder_outputs) {
      const [B, S] = encoder_outputs.shape as [number, number];
      checkRows("encoder_outputs", B, rows);
      const mask = maskOf({ values: new Int32Array(0), rows: B, columns: S });
      return { states: null, encoded: encoder_outputs, encodedMask: mask };
    }
    if (!input_ids) throw new ShapeError("forward", "input_ids or encoder_outputs are needed");
    const ids = toHost("input_ids", input_ids);
    checkRows("input_ids", ids.rows, rows);
    const encodedMask = maskOf(ids);
    const states = this.encode(ids, encodedMask, keepAll);
    return { states, encoded: states.at(-1)!, encodedMask };
  }
}

function checkRows(name: string, rows: number, expected: number): void {
  if (rows === expected) return;
  throw new ShapeError(name, `must have as many rows as the decoder's input ${formatShape([expected])}`, [rows]);
}
