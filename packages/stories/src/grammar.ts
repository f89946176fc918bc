import { ANIMALS, ASPECTS, type Aspect, FEELINGS, NAMES, TIMES } from "./world.ts";

/** A slot of a unit: an aspect of its animal, the animal, or a free choice. */
export type Slot = Aspect | "animal" | "name" | "feeling" | "time";

/**
 * The units that texts are made of. A unit is one or two sentences about one animal; its aspects must be that animal's, its
 * free slots may be anything. A slot that occurs twice holds the same words twice.
 */
export const UNITS: readonly string[] = [
  "the {animal} says {sound} .",
  "the {animal} lives in the {home} .",
  "the {animal} eats {food} .",
  "the {animal} is {colour} .",
  "the {animal} can {move} .",
  "the {animal} has {body} .",
  "what does the {animal} say ? it says {sound} .",
  "where does the {animal} live ? it lives in the {home} .",
  "what does the {animal} eat ? it eats {food} .",
  "what colour is the {animal} ? it is {colour} .",
  "what can the {animal} do ? it can {move} .",
  "what does the {animal} have ? it has {body} .",
  "{name} sees the {animal} . it says {sound} .",
  "{name} goes to the {home} and meets the {animal} .",
  "{name} brings {food} to the {animal} {time} .",
  "{name} likes the {animal} . it is {colour} and it can {move} .",
  "the {animal} is {feeling} {time} . it eats {food} in the {home} .",
  "{name} hears {sound} . it is the {animal} .",
  "{name} draws the {animal} with {body} .",
  "the {colour} {animal} is {feeling} .",
  "the {animal} says {sound} and eats {food} .",
  "{time} the {animal} can {move} in the {home} .",
];

/** Every filler of a slot, as words joined by spaces. */
export const FILLERS: Readonly<Record<Slot, readonly string[]>> = {
  animal: Object.keys(ANIMALS),
  name: NAMES,
  feeling: FEELINGS,
  time: TIMES,
  ...(Object.fromEntries(
    ASPECTS.map((aspect) => [aspect, [...new Set(Object.values(ANIMALS).map((animal) => animal[aspect]))]]),
  ) as unknown as Record<Aspect, readonly string[]>),
};

/** A unit cut into literal words and slots. */
export type Part = { readonly word: string } | { readonly slot: Slot };

export const partsOf = (unit: string): Part[] =>
  unit.split(" ").map((word) => (word.startsWith("{") ? { slot: word.slice(1, -1) as Slot } : { word }));

export const slotsOf = (unit: string): Slot[] => partsOf(unit).flatMap((part) => ("slot" in part ? [part.slot] : []));

export const isAspect = (slot: Slot): slot is Aspect => (ASPECTS as readonly string[]).includes(slot);

/** Every word of the language. */
export const VOCABULARY: readonly string[] = [
  ...new Set([
    ...UNITS.flatMap((unit) => partsOf(unit).flatMap((part) => ("word" in part ? [part.word] : []))),
    ...Object.values(FILLERS).flatMap((fillers) => fillers.flatMap((filler) => filler.split(" "))),
  ]),
].toSorted();
