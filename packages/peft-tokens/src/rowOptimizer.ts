import type { TouchedRows } from "@neolog/autograd";
import { CausalLM, type IdMatrix, toHost } from "@neolog/models";
import type { Tensor } from "@neolog/tensor";
import { configValue } from "./adaptable.ts";
import { AdapterError } from "./errors.ts";
import type { TrainableTokensLayer } from "./layer.ts";
import type { AnyPeftModel } from "./model.ts";
import { sidesOf } from "./sides.ts";

/** What of a batch decides which rows it touches: [B, T] each. */
export interface TouchingBatch {
  readonly input_ids: IdMatrix;
  readonly attention_mask?: IdMatrix | undefined;
  readonly decoder_input_ids?: IdMatrix | undefined;
  readonly labels?: IdMatrix | undefined;
}

/**
 * The rows that the batches of one step touch, for an optimizer with lazy rows: those whose token stands at a position that is no
 * padding, and all rows that give logits where there was a target.
 */
export function touchedRows(peft: AnyPeftModel, ...batches: readonly TouchingBatch[]): TouchedRows {
  const root = peft.getBaseModel();
  const ids = new Set(batches.flatMap((batch) => idsOf(batch, root)));
  const hasTarget = batches.some(({ labels }) => labels && targetsOf(labels, root instanceof CausalLM).length > 0);
  const touched = new Map<Tensor, Uint8Array>();
  for (const [path, layer] of peft.layers()) {
    const uses = sidesOf(root, path);
    for (const name of layer.adapters) {
      const sides = layer.sidesOf(name);
      const rows = layer.trainable_tokens_delta[name]!;
      const flags = touched.get(rows) ?? new Uint8Array(rows.shape[0]!);
      const given = uses.includes("output") && sides !== "input" && hasTarget;
      const looked = uses.includes("input") && sides !== "output";
      layer.indicesOf(name).forEach((id, slot) => {
        if (given || (looked && ids.has(id) && id !== layer.padding_idx)) flags[slot] = 1;
      });
      touched.set(rows, flags);
    }
  }
  return touched;
}

/** Trained rows → the base's rows in their place: what weight decay can pull them toward. Throws AdapterError UNKNOWN for other tensors. */
export function originalRows(peft: AnyPeftModel): (p: Tensor) => Tensor {
  const find = (p: Tensor, layers: readonly TrainableTokensLayer[]): Tensor | undefined => {
    for (const layer of layers) {
      const name = layer.adapters.find((adapter) => layer.trainable_tokens_delta[adapter] === p);
      if (name !== undefined) return layer.originalOf(name);
    }
    return undefined;
  };
  return (p) => {
    const original = find(p, [...peft.layers().values()]);
    if (original) return original;
    throw new AdapterError("UNKNOWN", `originalRows: must be given an adapter's rows, got ${String(p)}`);
  };
}

function idsOf({ input_ids, attention_mask, decoder_input_ids, labels }: TouchingBatch, root: object): number[] {
  const mask = attention_mask && toHost("attention_mask", attention_mask).values;
  const ids = [...toHost("input_ids", input_ids).values].filter((_, i) => mask?.[i] !== 0);
  if (configValue(root as never, "is_encoder_decoder") !== true) return ids;
  const start = configValue(root as never, "decoder_start_token_id");
  const decoded = decoder_input_ids
    ? toHost("decoder_input_ids", decoder_input_ids).values
    : labels
      ? targetsOf(labels, false)
      : [];
  return [...ids, ...decoded, ...(typeof start === "number" ? [start] : [])];
}

/** Labels that count; a decoder predicts none for the first position. */
function targetsOf(labels: IdMatrix, shifted: boolean): Int32Array {
  const { values, columns } = toHost("labels", labels);
  return values.filter((label, i) => label !== -100 && !(shifted && i % columns === 0));
}
