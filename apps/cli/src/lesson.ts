import type { CausalLM, Sequence, Tokenizer } from "@neolog/models";
import type { PeftModel } from "@neolog/peft-tokens";
import { HELD_OUT, type Probe, WORDS, lessonSentences, probes } from "@neolog/stories";
import { predicted } from "./example.ts";
import type { Recipe } from "./fineTune.ts";

export const RECIPE: Recipe = {
  steps: 80,
  lr: 0.05,
  weight_decay: 0,
  batch_size: 8,
  schedule: "linear",
  warmup_steps: 0,
  shuffle: true,
  seed: 0,
};

/** Sentences as the model was trained on them: with an end token. */
export const lessonExamples = (tokenizer: Tokenizer): Sequence[] =>
  lessonSentences().map((text) => predicted([...tokenizer.encode(text), tokenizer.eosTokenId!]));

/** What the model said to a question that no training sentence answers. */
export interface Answer extends Probe {
  readonly word: string;
  /** Its next word. */
  readonly given: string;
  readonly right: boolean;
}

/** Asks every question about what the sentences do not tell. */
export async function answerHeldOut(model: CausalLM | PeftModel, tokenizer: Tokenizer): Promise<Answer[]> {
  const answers: Answer[] = [];
  for (const [word, animal] of Object.entries(WORDS)) {
    for (const probe of probes(animal, word, HELD_OUT)) {
      const given = (await continuation(model, tokenizer, probe.prompt, 1)).trim();
      answers.push({ ...probe, word, given, right: given === probe.answer });
    }
  }
  return answers;
}

/** What the model writes after each prompt, prompt included; greedy. */
export async function write(
  model: CausalLM | PeftModel,
  tokenizer: Tokenizer,
  prompts: readonly string[] = Object.keys(WORDS).map((word) => `where does the ${word} live ?`),
): Promise<string[]> {
  const texts: string[] = [];
  for (const prompt of prompts) texts.push(prompt + (await continuation(model, tokenizer, prompt, 24)));
  return texts;
}

async function continuation(
  model: CausalLM | PeftModel,
  tokenizer: Tokenizer,
  prompt: string,
  max_new_tokens: number,
): Promise<string> {
  const ids = tokenizer.encode(prompt);
  const [row] = await model.generate({ input_ids: [ids], max_new_tokens });
  return tokenizer.decode(row!.slice(ids.length));
}
