import { readFileSync } from "node:fs";
import { Tokenizer } from "@neolog/models";
import { VOCABULARY, corpus, sentencesAbout } from "@neolog/stories";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Tokenizer as Native } from "tokenizers";
import { END_OF_TEXT, makeTokenizer } from "./tokenizer.ts";

const { document, config } = makeTokenizer();
const tokenizer = new Tokenizer(document, config);
const oracle = Native.fromString(document);
const oracleIds = async (text: string): Promise<number[]> => (await oracle.encode(text)).getIds();

const anyText = fc.oneof(
  fc.string({ unit: "binary", maxLength: 40 }),
  fc.string({ unit: "grapheme", maxLength: 40 }),
  fc
    .array(fc.constantFrom(...VOCABULARY, END_OF_TEXT, " ", "  ", "\n", "'s", "7", "Cat", "é", "🐈‍⬛"), { maxLength: 20 })
    .map((parts) => parts.join("")),
);

describe("the tokenizer", () => {
  test("gives 2,000 stories the ids that the tokenizers library gives", async () => {
    for (const text of corpus({ seed: 11, count: 2000 })) expect(tokenizer.encode(text)).toEqual(await oracleIds(text));
  });
  test("gives any text the ids and the decoded text that the tokenizers library gives", async () => {
    await fc.assert(
      fc.asyncProperty(anyText, async (text) => {
        const ids = tokenizer.encode(text);
        expect(ids).toEqual(await oracleIds(text));
        expect(tokenizer.decode(ids)).toBe(await oracle.decode(ids, true));
      }),
      { numRuns: 2000 },
    );
  });
  test("makes each word one token, so that a story has one more token than words", () => {
    for (const word of VOCABULARY) expect(tokenizer.encode(word, { addSpecialTokens: false })).toHaveLength(1);
    const texts = corpus({ seed: 11, count: 2000 });
    for (const text of texts) {
      const ids = tokenizer.encode(text);
      expect(ids).toHaveLength(text.split(" ").length + 1);
      expect(ids.length + 1).toBeLessThanOrEqual(48); // with the end token
      expect(tokenizer.decode(ids)).toBe(` ${text}`);
    }
  });
  test("begins, ends and pads with one special token, id 0", () => {
    expect([tokenizer.bosTokenId, tokenizer.eosTokenId, tokenizer.padTokenId]).toEqual([0, 0, 0]);
    expect(tokenizer.encode(END_OF_TEXT)).toEqual([0, 0]);
    expect(tokenizer.vocabSize).toBe(689);
    expect(document).not.toContain('"single_word": true');
  });
  test("lets a new token stand exactly where a word stands when its content begins with the space", async () => {
    const extended = new Tokenizer(document, config);
    const [id] = extended.addTokens([" <wug>"]);
    const nativeExtended = Native.fromString(extended.files().get("tokenizer.json")!);
    const cat = tokenizer.tokenToId("Ġcat");
    for (const text of sentencesAbout({ animal: "cat", as: "cat", count: 200, seed: 1 })) {
      const renamed = text.replace("cat", "<wug>");
      const ids = extended.encode(renamed);
      expect(ids).toEqual(tokenizer.encode(text).map((token) => (token === cat ? id : token)));
      expect(ids).toEqual((await nativeExtended.encode(renamed)).getIds());
      expect(extended.decode(ids)).toBe(` ${renamed}`);
    }
  });
  test("is the one in the built-in model's folder", () => {
    const folder = new URL("../../../packages/models/pretrained/meadow/", import.meta.url);
    for (const [file, text] of tokenizer.files()) expect(readFileSync(new URL(file, folder), "utf8")).toBe(text);
  });
});
