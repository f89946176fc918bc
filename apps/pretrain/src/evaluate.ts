import type { CausalLM, Tokenizer } from "@neolog/models";
import { ANIMALS, corpus, isTrue, parseText, probes } from "@neolog/stories";
import { untracked } from "@neolog/tensor";

/** How good the model is, judged by the grammar. */
export interface Quality {
  /** Mean cross entropy per token of stories that it was not trained on, in nats. */
  readonly held_out_loss: number;
  /** Share of samples at temperature 1 that the parser accepts. */
  readonly grammatical: number;
  /** Share of samples that are grammatical and tell nothing false. */
  readonly grammatical_and_true: number;
  /** Share of probes about all animals that greedy decoding answers. */
  readonly probes: number;
  readonly samples: readonly string[];
}

const SAMPLES = 500;
const ROWS = 50;

/** Samples, parses and probes the model. */
export async function evaluate(model: CausalLM, tokenizer: Tokenizer): Promise<Quality> {
  const texts: string[] = [];
  for (let seed = 1; texts.length < SAMPLES; seed++) {
    const input_ids = Array.from({ length: ROWS }, () => [0]);
    const rows = await model.generate({ input_ids, max_new_tokens: 60, do_sample: true, seed, pad_token_id: 0 });
    texts.push(...rows.map((ids) => tokenizer.decode(ids).trim()));
  }
  const parsed = texts.map((text) => parseText(text));
  const right = parsed.filter((result) => result.ok && result.units.every((unit) => isTrue(unit)));
  const asked = Object.keys(ANIMALS).flatMap((animal) => probes(animal, animal));
  let answered = 0;
  for (const { prompt, answer } of asked) {
    const ids = tokenizer.encode(prompt);
    const [row] = await model.generate({ input_ids: [ids], max_new_tokens: 1 });
    if (tokenizer.decode(row!.slice(ids.length)).trim() === answer) answered++;
  }
  return {
    held_out_loss: await heldOutLoss(model, tokenizer),
    grammatical: parsed.filter(({ ok }) => ok).length / texts.length,
    grammatical_and_true: right.length / texts.length,
    probes: answered / asked.length,
    samples: texts.slice(0, 8),
  };
}

async function heldOutLoss(model: CausalLM, tokenizer: Tokenizer): Promise<number> {
  let total = 0;
  let count = 0;
  for (const text of corpus({ seed: 2, count: 200 })) {
    const ids = [...tokenizer.encode(text), 0];
    const { loss, logits } = untracked(() => model.forward({ input_ids: [ids], labels: [ids] }));
    total += (await loss!.item()) * (ids.length - 1);
    count += ids.length - 1;
    loss!.dispose();
    logits.dispose();
  }
  return total / count;
}
