import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FILLERS, UNITS, partsOf } from "./grammar.ts";
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
const animals = fc.constantFrom(...Object.keys(ANIMALS));
const wordsOf = (seed: number): string[] => story(mulberry32(seed)).split(" ");
const isGrammatical = (words: readonly string[]): boolean => parseText(words.join(" ")).ok;

describe("a story", () => {
  test("is grammatical and true", () => {
    fc.assert(
      fc.property(seeds, (seed) => {
        const parsed = parseText(story(mulberry32(seed)));
        expect(parsed.ok && parsed.units.every((unit) => isTrue(unit))).toBe(true);
      }),
    );
  });
  test("is ungrammatical when a word is dropped, doubled or swapped with a different neighbour", () => {
    fc.assert(
      fc.property(seeds, fc.nat(), (seed, position) => {
        const words = wordsOf(seed);
        const at = position % (words.length - 1);
        const [word, next] = [words[at]!, words[at + 1]!];
        expect(isGrammatical(words.toSpliced(at, 1))).toBe(false);
        expect(isGrammatical(words.toSpliced(at, 0, word))).toBe(false);
        if (word !== next) expect(isGrammatical(words.toSpliced(at, 2, next, word))).toBe(false);
      }),
    );
  });
  test("with a word replaced at random is rarely both grammatical and true", () => {
    const random = mulberry32(5);
    const draw = (count: number): number => Math.floor(random() * count);
    let accepted = 0;
    for (let seed = 0; seed < 2000; seed++) {
      const words = wordsOf(seed);
      const at = draw(words.length);
      const others = VOCABULARY.filter((word) => word !== words[at]);
      const parsed = parseText(words.toSpliced(at, 1, others[draw(others.length)]!).join(" "));
      if (parsed.ok && parsed.units.every((unit) => isTrue(unit))) accepted++;
    }
    expect(accepted / 2000).toBeLessThan(0.02); // another name, feeling or time is as good as the first
  });
  test("has one to three units of at most 14 words", () => {
    const longest = (words: readonly string[]): number => Math.max(...words.map((word) => word.split(" ").length));
    const lengths = UNITS.map((unit) =>
      partsOf(unit).reduce((sum, part) => sum + ("word" in part ? 1 : longest(FILLERS[part.slot])), 0),
    );
    expect(Math.max(...lengths)).toBe(14);
    fc.assert(
      fc.property(seeds, (seed) => {
        const parsed = parseText(story(mulberry32(seed)));
        expect(parsed.ok && parsed.units.length >= 1 && parsed.units.length <= 3).toBe(true);
      }),
    );
  });
});

describe("the corpus", () => {
  test("of a seed is always the same, in the words of the vocabulary", () => {
    const texts = corpus({ seed: 7, count: 300 });
    expect(texts).toEqual(corpus({ seed: 7, count: 300 }));
    expect(texts).not.toEqual(corpus({ seed: 8, count: 300 }));
    expect(texts.flatMap((text) => text.split(" ")).filter((word) => !VOCABULARY.includes(word))).toEqual([]);
    expect(VOCABULARY.length).toBeLessThanOrEqual(400);
  });
  test("begins as it did when the built-in model was trained", () => {
    const hash = createHash("sha256")
      .update(corpus({ seed: 1, count: 24_000 }).join("\n"))
      .digest("hex");
    expect(hash.slice(0, 16)).toBe("b9a0e1e64f9ba2ea");
  });
  test("speaks every unit and every word", () => {
    const texts = corpus({ seed: 3, count: 4000 });
    const units = texts.flatMap((text) => {
      const parsed = parseText(text);
      return parsed.ok ? parsed.units.map(({ unit }) => unit) : [];
    });
    expect(new Set(units)).toEqual(new Set(UNITS));
    expect(new Set(texts.flatMap((text) => text.split(" ")))).toEqual(new Set(VOCABULARY));
  });
  test("is drawn by mulberry32", () => {
    const random = mulberry32(0);
    expect([random(), random()]).toEqual([0.26642920868471265, 0.0003297457005828619]);
  });
});

describe("parseText", () => {
  test("says where it stopped, at what, and what could have stood there", () => {
    expect(parseText("the cat says on .")).toEqual({ ok: false, at: 3, found: "on", expected: ["{sound}"] });
    expect(parseText("the cat says meow")).toEqual({ ok: false, at: 4, found: "the end", expected: [".", "and"] });
    expect(parseText("what is")).toMatchObject({ at: 1, found: "is", expected: ["does", "colour", "can"] });
    expect(parseText(" ")).toMatchObject({ ok: false, at: 0, found: "the end" });
  });
  test("takes only the same animal's words for a slot that occurs once, and any animal from unit to unit", () => {
    expect(parseText("the cat is black . the dog is brown .")).toMatchObject({ ok: true });
    expect(parseText("the cat is black . it is brown .")).toMatchObject({ ok: false, at: 5, found: "it" });
  });
  test("leaves it to isTrue whether a fact is one", () => {
    const parsed = parseText("the cat says woof . the dog says woof .");
    expect(parsed.ok && parsed.units.map((unit) => isTrue(unit))).toEqual([false, true]);
  });
  test("knows a new word once it is declared", () => {
    fc.assert(
      fc.property(seeds, animals, (seed, animal) => {
        const [text] = sentencesAbout({ animal, as: "<wug>", count: 1, seed });
        const aliases = { "<wug>": animal };
        expect(parseText(text!).ok).toBe(false);
        const parsed = parseText(text!, aliases);
        expect(parsed.ok && parsed.units.every((unit) => isTrue(unit, aliases))).toBe(true);
      }),
    );
  });
});

describe("a new word", () => {
  test("can be probed for what its sentences did not tell", () => {
    fc.assert(
      fc.property(seeds, animals, fc.subarray([...ASPECTS], { minLength: 1 }), (seed, animal, aspects) => {
        const told = sentencesAbout({ animal, as: "<wug>", aspects, count: 100, seed }).join(" ");
        const heldOut = ASPECTS.filter((aspect) => !aspects.includes(aspect));
        for (const { prompt, answer } of probes(animal, "<wug>", heldOut)) {
          expect(told).not.toContain(`${prompt} ${answer}`);
        }
      }),
    );
    const told = sentencesAbout({ animal: "bee", as: "<wug>", aspects: ["sound", "home"], count: 200, seed: 1 });
    for (const hidden of ["honey", "fly", "stripes"]) expect(told.join(" ")).not.toContain(hidden);
  });
  test("finds each probe answered in the language of its animal", () => {
    fc.assert(
      fc.property(animals, (animal) => {
        for (const { prompt, answer } of probes(animal, animal)) {
          const parsed = parseText(`${prompt} ${answer} .`);
          expect(parsed.ok && parsed.units.every((unit) => isTrue(unit))).toBe(true);
        }
      }),
    );
    expect(probes("bee", "<wug>", ["food"])).toEqual([
      { aspect: "food", prompt: "the <wug> eats", answer: "honey" },
      { aspect: "food", prompt: "what does the <wug> eat ? it eats", answer: "honey" },
    ]);
  });
  test("is known from its sound or its home alone, and no two animals are alike", () => {
    for (const aspects of [["sound"], ["home"], ASPECTS] as const) {
      const told = Object.values(ANIMALS).map((animal) => aspects.map((aspect) => animal[aspect]).join());
      expect(told).toHaveLength(new Set(told).size);
    }
  });
  test("must stand for an animal of which something may be told", () => {
    const options = { animal: "cat", as: "<wug>", count: 1, seed: 1 };
    expect(() => sentencesAbout({ ...options, animal: "unicorn" })).toThrow(
      /^sentencesAbout: animal must be one of cat, .*got "unicorn"$/,
    );
    expect(() => probes("toString", "<wug>")).toThrow('got "toString"');
    expect(() => sentencesAbout({ ...options, aspects: [] })).toThrow("sentencesAbout: aspects must name one of sound");
  });
});
