import { ARCHITECTURES, type CausalLM, type PretrainedConfig, architectureOf } from "@neolog/models";
import { TINY } from "@neolog/models/testing";
import { initWeights } from "@neolog/nn";
import { Scope, type Tensor, assign, tensor } from "@neolog/tensor";
import type { PeftModel } from "./model.ts";
import type { Warning } from "./warnings.ts";

/** One layer, 11 tokens, width 6. */
const SMALL = {
  vocab_size: 11,
  hidden_size: 6,
  intermediate_size: 8,
  num_hidden_layers: 1,
  num_attention_heads: 3,
  num_key_value_heads: 1,
  head_dim: 2,
  max_position_embeddings: 16,
  rms_norm_eps: 1e-5,
  hidden_act: "silu",
  n_embd: 6,
  n_layer: 1,
  n_head: 3,
  n_positions: 16,
};
const NAMED: Readonly<Record<string, object>> = {
  gpt2: { model_type: "gpt2", tie_word_embeddings: true },
  "gpt2 untied": { model_type: "gpt2", tie_word_embeddings: false },
  llama: { model_type: "llama", tie_word_embeddings: false },
  "llama tied": { model_type: "llama", tie_word_embeddings: true },
  "llama with biases": { model_type: "llama", tie_word_embeddings: false, attention_bias: true },
};

/** A name above, or an architecture of the registry and what its head is. */
export type BaseName = string;

/** Every architecture, head tied and untied; vocabularies of 23. */
export const EVERY_BASE: readonly BaseName[] = Object.keys(ARCHITECTURES).flatMap((type) => [
  `${type}, tied`,
  `${type}, untied`,
]);

export function configOf(name: BaseName): PretrainedConfig {
  const [model_type, tie] = name.split(", ");
  const config = NAMED[name] ? { ...SMALL, ...NAMED[name] } : TINY[model_type!];
  return { ...config, ...(tie && { tie_word_embeddings: tie === "tied" }) } as never;
}
/** Typed as a decoder, since most are; an encoder has all but `generate`. */
export function makeBase(name: BaseName, seed = 3): CausalLM {
  const config = configOf(name);
  const model = architectureOf(config).create(config, "config.json");
  initWeights(model, seed, 0.5);
  return model as CausalLM;
}
export const isTied = (name: BaseName): boolean => configOf(name)["tie_word_embeddings"] === true;

/** Every id twice, in two rows. */
export const BATCH = {
  input_ids: [
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
    [10, 3, 9, 2, 8, 1, 7, 0, 6, 4, 5],
  ],
  labels: [
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
    [10, 3, 9, 2, 8, 1, 7, 0, 6, 4, 5],
  ],
};

/** Logits of BATCH as host numbers. */
export function logitsOf(model: PeftModel | CausalLM, input_ids: number[][] = BATCH.input_ids): Float32Array {
  using _scope = new Scope();
  return model.forward({ input_ids, labels: input_ids }).logits.dataSync() as Float32Array; // T5 decodes the labels
}

/** Every parameter by its path, as host numbers. */
export const valuesOf = (model: CausalLM): Map<string, ArrayLike<number>> =>
  new Map([...model.namedParameters()].map(([key, t]) => [key, t.dataSync()]));

/** Writes host numbers into a leaf. */
export function put(t: Tensor, values: ArrayLike<number>): void {
  const source = tensor(Array.from(values), t.shape);
  assign(t, source);
  source.dispose();
}

/** Rows that are no base's: value(slot, column) of each. */
export function setRows(
  peft: Pick<PeftModel, "layers">,
  adapter: string,
  value = (slot: number, column: number): number => Math.sin(7 * slot + column),
): void {
  for (const layer of peft.layers().values()) {
    const rows = layer.trainable_tokens_delta[adapter];
    if (!rows) continue;
    const [k, width] = rows.shape as [number, number];
    put(
      rows,
      Array.from({ length: k * width }, (_, i) => value(Math.floor(i / width), i % width)),
    );
  }
}

/** What a call throws or rejects with; fails the test where it does neither. */
export async function caught(run: () => unknown): Promise<{ readonly code?: string; readonly message: string }> {
  try {
    await run();
  } catch (error) {
    return error as { code?: string; message: string };
  }
  throw new Error("must throw, did not");
}

/** A listener for warnings and the codes that it heard. */
export function listener(): { readonly codes: string[]; readonly onWarning: (warning: Warning) => void } {
  const codes: string[] = [];
  return { codes, onWarning: ({ code }) => codes.push(code) };
}
