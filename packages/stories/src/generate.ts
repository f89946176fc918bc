import { FILLERS, UNITS, type Slot, isAspect, partsOf, slotsOf } from "./grammar.ts";
import { ANIMALS, ASPECTS, type Animal, type Aspect } from "./world.ts";

/** A source of uniform numbers in [0, 1). */
export type RandomSource = () => number;

/** Tommy Ettinger's mulberry32: a small generator with a 32-bit state. */
export function mulberry32(seed: number): RandomSource {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const pick = <T>(items: readonly T[], random: RandomSource): T => items[Math.floor(random() * items.length)]!;

function animalCalled(word: string, where: string): Animal {
  if (Object.hasOwn(ANIMALS, word)) return ANIMALS[word]!;
  throw new RangeError(`${where}: animal must be one of ${Object.keys(ANIMALS).join(", ")}, got "${word}"`);
}

/** A unit about an animal, whose word may be replaced by `as`; free slots are drawn. */
function fill(unit: string, animal: string, as: string, random: RandomSource): string {
  const chosen = new Map<Slot, string>();
  const fillerOf = (slot: Slot): string => {
    if (slot === "animal") return as;
    if (isAspect(slot)) return ANIMALS[animal]![slot];
    if (!chosen.has(slot)) chosen.set(slot, pick(FILLERS[slot], random));
    return chosen.get(slot)!;
  };
  return partsOf(unit)
    .map((part) => ("word" in part ? part.word : fillerOf(part.slot)))
    .join(" ");
}

/** One to three units, about one animal or several. */
export function story(random: RandomSource): string {
  const animals = Object.keys(ANIMALS);
  const oneAnimal = random() < 0.5 ? pick(animals, random) : null;
  const count = 1 + Math.floor(random() * 3);
  return Array.from({ length: count }, () => {
    const animal = oneAnimal ?? pick(animals, random);
    return fill(pick(UNITS, random), animal, animal, random);
  }).join(" ");
}

/** `count` stories; the same seed gives the same ones. */
export function corpus({ seed, count }: { readonly seed: number; readonly count: number }): string[] {
  const random = mulberry32(seed);
  return Array.from({ length: count }, () => story(random));
}

export interface SentencesOptions {
  /** The animal that is spoken of. */
  readonly animal: string;
  /** The word that stands for it. */
  readonly as: string;
  /** What the sentences may tell; all six by default. */
  readonly aspects?: readonly Aspect[];
  readonly count: number;
  readonly seed: number;
}

/**
 * Single units about an animal under another word, which tell no other aspects than those allowed: the probes of the other
 * aspects are then held out. Throws RangeError for an unknown animal or when no unit can tell the aspects.
 */
export function sentencesAbout({ animal, as, aspects = ASPECTS, count, seed }: SentencesOptions): string[] {
  animalCalled(animal, "sentencesAbout");
  const random = mulberry32(seed);
  const allowed = UNITS.filter((unit) => slotsOf(unit).every((slot) => !isAspect(slot) || aspects.includes(slot)));
  if (allowed.length === 0)
    throw new RangeError(`sentencesAbout: aspects must name one of ${ASPECTS.join(", ")}, got []`);
  return Array.from({ length: count }, () => fill(pick(allowed, random), animal, as, random));
}

/** A prompt and the word that must follow it. */
export interface Probe {
  readonly aspect: Aspect;
  readonly prompt: string;
  readonly answer: string;
}

const PROBES: readonly (readonly [Aspect, string])[] = [
  ["sound", "the {} says"],
  ["sound", "what does the {} say ? it says"],
  ["home", "the {} lives in the"],
  ["home", "where does the {} live ? it lives in the"],
  ["food", "the {} eats"],
  ["food", "what does the {} eat ? it eats"],
  ["colour", "what colour is the {} ? it is"],
  ["move", "the {} can"],
  ["move", "what can the {} do ? it can"],
  ["body", "the {} has"],
  ["body", "what does the {} have ? it has"],
];

/**
 * Every probe of an animal under a word, for the aspects given. No sentence that tells only other aspects answers one: a model
 * that does has inferred which animal the word stands for. Throws RangeError for an unknown animal.
 */
export function probes(animal: string, as: string, aspects: readonly Aspect[] = ASPECTS): Probe[] {
  const facts = animalCalled(animal, "probes");
  return PROBES.filter(([aspect]) => aspects.includes(aspect)).map(([aspect, prompt]) => ({
    aspect,
    prompt: prompt.replace("{}", () => as),
    answer: facts[aspect],
  }));
}
