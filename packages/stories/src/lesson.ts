import { sentencesAbout } from "./generate.ts";
import { ASPECTS, type Aspect } from "./world.ts";

/** New words and the animals that they stand for. */
export const WORDS: Readonly<Record<string, string>> = { wug: "duck", dax: "owl", blick: "snake" };

/** What the training sentences tell of each animal. All other aspects are held out: the model must infer them. */
export const TOLD: readonly Aspect[] = ["sound", "food"];
export const HELD_OUT = ASPECTS.filter((aspect) => !TOLD.includes(aspect));

const DRAWS = 20;

/** Distinct sentences that tell what each new word says and eats. */
export const lessonSentences = (): string[] =>
  Object.entries(WORDS).flatMap(([word, animal]) => [
    ...new Set(sentencesAbout({ animal, as: word, aspects: TOLD, count: DRAWS, seed: 1 })),
  ]);

/** The token of a word in running text: with the space before it, as the tokenizer has all its words. */
export const tokenOf = (word: string): string => ` ${word}`;
