import { FILLERS, type Slot, UNITS, isAspect, partsOf } from "./grammar.ts";
import { ANIMALS } from "./world.ts";

/** A unit that was recognised, with what fills its slots. */
export interface ParsedUnit {
  readonly unit: string;
  readonly fillers: ReadonlyMap<Slot, string>;
}

/** The units of a text, or the first word at which no unit goes on and what could have stood there: words or `{slot}`s. */
export type ParseResult =
  | { readonly ok: true; readonly units: readonly ParsedUnit[] }
  | { readonly ok: false; readonly at: number; readonly found: string; readonly expected: readonly string[] };

const GRAMMAR = UNITS.map((unit) => ({ unit, parts: partsOf(unit) }));

/**
 * Recognises a text as a sequence of units, or says at which word no unit goes on. `aliases` are new words and the animals
 * they stand for.
 */
export function parseText(text: string, aliases: Readonly<Record<string, string>> = {}): ParseResult {
  const words = text.split(/\s+/).filter((word) => word !== "");
  let furthest = 0;
  const expected = new Set<string>();

  function attempt(at: number, what: string): void {
    if (at > furthest) expected.clear();
    furthest = Math.max(furthest, at);
    if (at === furthest) expected.add(what);
  }

  function unitAt(start: number): { parsed: ParsedUnit; next: number }[] {
    return GRAMMAR.flatMap(({ unit, parts }) => {
      let states: { at: number; fillers: Map<Slot, string> }[] = [{ at: start, fillers: new Map() }];
      for (const part of parts) {
        states = states.flatMap(({ at, fillers }) => {
          attempt(at, "word" in part ? part.word : `{${part.slot}}`);
          if ("word" in part) return words[at] === part.word ? [{ at: at + 1, fillers }] : [];
          return fillersAt(part.slot, at)
            .filter((filler) => (fillers.get(part.slot) ?? filler) === filler)
            .map((filler) => ({ at: at + filler.split(" ").length, fillers: new Map(fillers).set(part.slot, filler) }));
        });
      }
      return states.map(({ at, fillers }) => ({ parsed: { unit, fillers }, next: at }));
    });
  }
  function fillersAt(slot: Slot, at: number): string[] {
    const candidates = slot === "animal" ? [...FILLERS.animal, ...Object.keys(aliases)] : FILLERS[slot];
    return candidates.filter((filler) => filler.split(" ").every((word, i) => words[at + i] === word));
  }
  function textFrom(start: number): ParsedUnit[] | null {
    for (const { parsed, next } of unitAt(start)) {
      const rest = next === words.length ? [] : textFrom(next);
      if (rest) return [parsed, ...rest];
    }
    return null;
  }

  const units = textFrom(0);
  if (units) return { ok: true, units };
  return { ok: false, at: furthest, found: words[furthest] ?? "the end", expected: [...expected] };
}

/** True when every aspect that a unit tells is its animal's. */
export function isTrue({ fillers }: ParsedUnit, aliases: Readonly<Record<string, string>> = {}): boolean {
  const word = fillers.get("animal")!;
  const animal = ANIMALS[aliases[word] ?? word];
  return [...fillers].every(([slot, filler]) => !isAspect(slot) || animal?.[slot] === filler);
}
