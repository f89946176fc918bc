import { BYTES_PER_ELEMENT, type Tensor } from "@neolog/tensor";
import type { PretrainedConfig } from "./config.ts";

/**
 * Which blocks run again for their gradient: none, all, or as few as it takes for all blocks together to keep at most `maxBytes`
 * between forward and backward, the input of each included.
 */
export type GradientCheckpointing = boolean | { readonly maxBytes: number };

/** `gradientCheckpointing` was set to what it cannot be. */
export class GradientCheckpointingError extends RangeError {
  override readonly name = "GradientCheckpointingError";
  readonly maxBytes: unknown;

  constructor(maxBytes: unknown) {
    super(`gradientCheckpointing: maxBytes must be a number of bytes from 0 on, got ${String(maxBytes)}`);
    this.maxBytes = maxBytes;
  }
}

export function checkedChoice(choice: GradientCheckpointing): GradientCheckpointing {
  if (typeof choice !== "boolean" && !(typeof choice.maxBytes === "number" && choice.maxBytes >= 0))
    throw new GradientCheckpointingError(choice.maxBytes);
  return choice;
}

/** How many blocks a forward pass runs, encoder and decoder together. */
export function blockCount(config: PretrainedConfig): number {
  const numbers = ["num_hidden_layers", "n_layer"].map((key) => config[key]).filter((n) => typeof n === "number");
  if (numbers.length > 0) return numbers[0]!;
  const [encoder, decoder = encoder] = [config["num_layers"], config["num_decoder_layers"]];
  return typeof encoder === "number" && typeof decoder === "number" ? encoder + decoder : 0;
}

/** Says of each block in turn whether it may keep `bytes` beside its input x, given what the inputs of those to come will take. */
export function blockBudget(maxBytes: number, blocks: number): (x: Tensor, bytes: number) => boolean {
  let [left, toCome] = [maxBytes, blocks];
  return (x, bytes) => {
    const input = x.size * BYTES_PER_ELEMENT[x.dtype];
    left -= input;
    toCome = Math.max(0, toCome - 1);
    if (bytes > left - toCome * input) return false;
    left -= bytes;
    return true;
  };
}
