import { AdamW, backward, clipGradNorm, schedule } from "@neolog/autograd";
import { writeFolder } from "@neolog/checkpoint";
import { AutoModelForCausalLM, type CausalLM, Tokenizer } from "@neolog/models";
import { corpus } from "@neolog/stories";
import { Random, Scope } from "@neolog/tensor";
import { type Quality, evaluate } from "./evaluate.ts";
import { makeTokenizer } from "./tokenizer.ts";

const SEED = 1;
const STEPS = 3500;
const BATCH = 32;
const CORPUS = 60_000;
const LEARNING_RATE = 3e-3;

/** A small Llama with a tied head. */
export const CONFIG = {
  architectures: ["LlamaForCausalLM"],
  attention_bias: false,
  attention_dropout: 0,
  bos_token_id: 0,
  dtype: "float32",
  eos_token_id: 0,
  head_dim: 16,
  hidden_act: "silu",
  hidden_size: 64,
  initializer_range: 0.02,
  intermediate_size: 176,
  max_position_embeddings: 128,
  mlp_bias: false,
  model_type: "llama",
  num_attention_heads: 4,
  num_hidden_layers: 3,
  num_key_value_heads: 2,
  pad_token_id: 0,
  rms_norm_eps: 1e-5,
  rope_parameters: { rope_theta: 10_000, rope_type: "default" },
  tie_word_embeddings: true,
  transformers_version: "5.18.0",
  use_cache: true,
};

/** One text with the end token on both sides. */
export const encodeText = (tokenizer: Tokenizer, text: string): number[] => [...tokenizer.encode(text), 0];

/** Rows of one length: padded on the right, with labels that skip the padding. */
function collate(texts: readonly number[][]) {
  const length = Math.max(...texts.map((ids) => ids.length));
  const padded = (fill: number, of: (ids: number[]) => number[]): number[][] =>
    texts.map((ids) => [...of(ids), ...Array.from({ length: length - ids.length }, () => fill)]);
  return {
    input_ids: padded(0, (ids) => ids),
    attention_mask: padded(0, (ids) => ids.map(() => 1)),
    labels: padded(-100, (ids) => ids),
  };
}

/** Batches of texts of similar length, in random order, epoch after epoch. */
function* batches(texts: readonly number[][], random: Random): Generator<number[][]> {
  for (;;) {
    const order = random.permutation(texts.length).map((i) => texts[i]!);
    const pool = BATCH * 16;
    for (let start = 0; start + pool <= order.length; start += pool) {
      const sorted = order.slice(start, start + pool).toSorted((a, b) => a.length - b.length);
      for (const i of random.permutation(16)) yield sorted.slice(i * BATCH, (i + 1) * BATCH);
    }
  }
}

/** Trains the built-in model from nothing and writes it, with its tokenizer and how good it is, into `out`. */
export async function trainBuiltIn(out: string, steps = STEPS): Promise<void> {
  const { document, config: tokenizerConfig } = makeTokenizer();
  const tokenizer = new Tokenizer(document, tokenizerConfig);
  const model = AutoModelForCausalLM.fromConfig({ ...CONFIG, vocab_size: tokenizer.vocabSize }, { seed: SEED });
  const parameters = model.parameters();
  for (const p of parameters) p.requiresGrad = true;
  const optimizer = new AdamW(parameters, { lr: LEARNING_RATE, weight_decay: 0.01, betas: [0.9, 0.98] });
  const factor = schedule("cosine", { warmupSteps: 50, totalSteps: steps });
  const source = batches(
    corpus({ seed: SEED, count: CORPUS }).map((text) => encodeText(tokenizer, text)),
    new Random(SEED),
  );
  const started = performance.now();
  for (let step = 0; step < steps; step++) {
    using _step = new Scope();
    optimizer.lr = LEARNING_RATE * factor(step);
    const { loss } = model.forward(collate(source.next().value as number[][]));
    backward(loss!);
    clipGradNorm(parameters, 1);
    optimizer.step();
    if (step % 50 === 0 || step === steps - 1) {
      const seconds = (performance.now() - started) / 1000;
      console.error(`step ${step}  loss ${(await loss!.item()).toFixed(4)}  ${seconds.toFixed(0)} s`);
    }
    if (step % 300 === 299) await save(model, tokenizer, out, null);
  }
  for (const p of parameters) p.requiresGrad = false;
  const quality = await evaluate(model, tokenizer);
  console.error(JSON.stringify(quality, null, 2));
  await save(model, tokenizer, out, quality);
}

async function save(model: CausalLM, tokenizer: Tokenizer, out: string, quality: Quality | null): Promise<void> {
  await model.savePretrained(out);
  await tokenizer.savePretrained(out);
  const generation = { _from_model_config: true, bos_token_id: 0, eos_token_id: 0, pad_token_id: 0 };
  await writeFolder(
    out,
    new Map([
      ["generation_config.json", `${JSON.stringify(generation, null, 2)}\n`],
      ...(quality ? [["metrics.json", `${JSON.stringify(quality, null, 2)}\n`] as const] : []),
    ]),
  );
}
