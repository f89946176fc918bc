import { describe, expect, test } from "vitest";
import { Tokenizer } from "./tokenizer.ts";

const characters = [..."▁abcdefghijklmnopqrstuvwxyz.<>"];

/** Llama's way with spaces: one before the text, all written ▁. */
const llama = (): Tokenizer =>
  new Tokenizer(
    JSON.stringify({
      version: "1.0",
      added_tokens: [],
      normalizer: {
        type: "Sequence",
        normalizers: [
          { type: "Prepend", prepend: "▁" },
          { type: "Replace", pattern: { String: " " }, content: "▁" },
        ],
      },
      pre_tokenizer: null,
      post_processor: null,
      decoder: {
        type: "Sequence",
        decoders: [
          { type: "Replace", pattern: { String: "▁" }, content: " " },
          { type: "Fuse" },
          { type: "Strip", content: " ", start: 1, stop: 0 },
        ],
      },
      model: { type: "BPE", vocab: Object.fromEntries(characters.map((c, id) => [c, id])), merges: [] },
    }),
    '{"clean_up_tokenization_spaces": false}',
  );

// tokens and texts from Hugging Face's tokenizers 0.23.2
describe("an added token where spaces are ▁", () => {
  const tokenizer = llama();
  const [wug] = tokenizer.addTokens(["<wug>"]) as [number];

  test("takes the space before it along, into ids and back into text", () => {
    const ids = tokenizer.encode("a <wug>. b");
    expect(ids.map((id) => tokenizer.idToToken(id))).toEqual(["▁", "a", "<wug>", ".", "▁", "b"]);
    expect(tokenizer.decode(ids)).toBe("a <wug>. b");
    expect(tokenizer.decode(tokenizer.encode("<wug> a"))).toBe("<wug> a");
  });

  test("is not found inside a word", () => {
    const ids = tokenizer.encode("a<wug>");
    expect(ids).not.toContain(wug);
    expect(tokenizer.decode(ids)).toBe("a<wug>");
  });

  test("keeps its name and id", () => {
    expect(tokenizer.tokenToId("<wug>")).toBe(wug);
    expect(tokenizer.idToToken(wug)).toBe("<wug>");
    expect(tokenizer.addTokens(["<wug>"])).toEqual([wug]);
    expect(tokenizer.vocabSize).toBe(wug + 1);
  });
});

test.each([
  ["{}", 'tokenizer.json: must be a tokenizer of the tokenizers library, found that Tokenizer must contain a "model"'],
  ["{", "tokenizer.json: "],
])("%s is refused by its name", (document, message) => {
  expect(() => new Tokenizer(document)).toThrow(
    expect.objectContaining({ code: "CORRUPT", message: expect.stringContaining(message) as string }) as Error,
  );
});
