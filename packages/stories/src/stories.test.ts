import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  ANIMALS,
  ASPECTS,
  VOCABULARY,
  corpus,
  isTrue,
  mulberry32,
  parseText,
  probes,
  sentencesAbout,
  story,
} from "./index.ts";

const seeds = fc.integer({ min: 0, max: 2 ** 32 - 1 });

describe("stories", () => {
  test("every story is grammatical and true", () => {
    fc.assert(
      fc.property(seeds, (seed) => {
        const parsed = parseText(story(mulberry32(seed)));
        expect(parsed.ok && parsed.units.every((unit) => isTrue(unit))).toBe(true);
      }),
    );
  });
  test("dropping or doubling a word makes a story ungrammatical", () => {
    fc.assert(
      fc.property(seeds, fc.nat(), fc.boolean(), (seed, position, drop) => {
        const words = corpus({ seed, count: 1 })[0]!.split(" ");
        const at = position % words.length;
        const broken = words.toSpliced(at, drop ? 1 : 0, ...(drop ? [] : [words[at]!]));
        expect(parseText(broken.join(" ")).ok).toBe(false);
      }),
    );
  });
  test("the words of one seed are always the same and all in the vocabulary", () => {
    const texts = corpus({ seed: 7, count: 300 });
    expect(texts).toEqual(corpus({ seed: 7, count: 300 }));
    expect(texts.flatMap((text) => text.split(" ")).filter((word) => !VOCABULARY.includes(word))).toEqual([]);
    expect(VOCABULARY.length).toBeLessThanOrEqual(400);
    expect(Math.max(...texts.map((text) => text.split(" ").length))).toBeLessThanOrEqual(46);
  });
  test("a false fact is grammatical and not true", () => {
    const parsed = parseText("the cat says woof .");
    expect(parsed.ok && parsed.units.map((unit) => isTrue(unit))).toEqual([false]);
  });
  test("the parser says where it stopped", () => {
    expect(parseText("the cat says on .")).toEqual({ ok: false, at: 3, found: "on" });
    expect(parseText("the cat says")).toEqual({ ok: false, at: 3, found: "the end" });
    expect(parseText("")).toMatchObject({ ok: false });
  });
  test("a new word is a word once it is declared", () => {
    const [text] = sentencesAbout({ animal: "cat", as: "<wug>", count: 1, seed: 1 });
    expect(parseText(text!).ok).toBe(false);
    const parsed = parseText(text!, { "<wug>": "cat" });
    expect(parsed.ok && parsed.units.every((unit) => isTrue(unit, { "<wug>": "cat" }))).toBe(true);
  });
  test("sentences tell no aspect but those allowed, so that the others can be probed", () => {
    const told = sentencesAbout({ animal: "bee", as: "<wug>", aspects: ["sound", "home"], count: 200, seed: 1 }).join(
      " ",
    );
    for (const hidden of ["honey", "fly", "stripes"]) expect(told).not.toContain(hidden);
    expect(probes("bee", "<wug>", ["food"]).map(({ answer }) => answer)).toEqual(["honey", "honey"]);
  });
  test("no two animals are alike", () => {
    const descriptions = Object.values(ANIMALS).map((animal) => ASPECTS.map((aspect) => animal[aspect]).join());
    expect(new Set(descriptions).size).toBe(descriptions.length);
  });
});
