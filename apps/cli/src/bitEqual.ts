import type { CausalLM, Tokenizer } from "@neolog/models";
import type { PeftModel } from "@neolog/peft-tokens";
import { Scope, untracked } from "@neolog/tensor";

/** Logits of one text, row-major [tokens, vocab]. */
export interface TextLogits {
  readonly values: Float32Array;
  readonly vocab: number;
}

/** The logits of each text, one forward pass each. */
export async function logitsOf(
  model: CausalLM | PeftModel,
  tokenizer: Tokenizer,
  texts: readonly string[],
): Promise<TextLogits[]> {
  const all: TextLogits[] = [];
  for (const text of texts) {
    using _scope = new Scope();
    const { logits } = untracked(() => model.forward({ input_ids: [tokenizer.encode(text)] }));
    all.push({ values: Float32Array.from(await logits.data()), vocab: logits.shape[2]! });
  }
  return all;
}

/** How many numbers have the same bytes in both, columns `except` left out. */
export function countEqual(
  a: readonly TextLogits[],
  b: readonly TextLogits[],
  except: readonly number[] = [],
): { equal: number; total: number } {
  let equal = 0;
  let total = 0;
  a.forEach(({ values, vocab }, text) => {
    const x = bitsOf(values);
    const y = bitsOf(b[text]!.values);
    for (let i = 0; i < x.length; i++) {
      if (except.includes(i % vocab)) continue;
      total++;
      if (x[i] === y[i]) equal++;
    }
  });
  return { equal, total };
}

/** The rows of two tables [rows, width] that differ in any byte. */
export function changedRows(before: Float32Array, after: Float32Array, width: number): number[] {
  const x = bitsOf(before);
  const y = bitsOf(after);
  const rows = new Set<number>();
  for (let i = 0; i < x.length; i++) if (x[i] !== y[i]) rows.add(Math.floor(i / width));
  return [...rows];
}

const bitsOf = (values: Float32Array): Int32Array => new Int32Array(values.buffer, values.byteOffset, values.length);
