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

describe("blanks before punctuation", () => {
  const wordPiece = (config: string): string => {
    const model = { type: "WordPiece", unk_token: "a", continuing_subword_prefix: "##", max_input_chars_per_word: 9 };
    const document = {
      added_tokens: [],
      normalizer: null,
      pre_tokenizer: { type: "WhitespaceSplit" },
      post_processor: null,
      decoder: { type: "WordPiece", prefix: "##", cleanup: false },
      model: { ...model, vocab: { a: 0, ".": 1 } },
    };
    const tokenizer = new Tokenizer(JSON.stringify(document), config);
    return tokenizer.decode(tokenizer.encode("a ."));
  };

  // as transformers 5.18 decodes
  test.each([
    ["{}", "a ."],
    ['{"clean_up_tokenization_spaces": false}', "a ."],
    ['{"clean_up_tokenization_spaces": true}', "a."],
    ['{"remove_space": true, "do_lowercase_and_remove_accent": true}', "a ."],
  ])("%s leaves %j", (config, text) => expect(wordPiece(config)).toBe(text));

  test("stay after BPE, whatever the config says", () => {
    const bpe = new Tokenizer(
      llama().files().get("tokenizer.json")!,
      '{"clean_up_tokenization_spaces": true, "remove_space": true}',
    );
    expect(bpe.decode(bpe.encode("a  . b"))).toBe("a  . b");
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

describe("what the encoder would do otherwise than the reference is refused:", () => {
  const refuse = (changes: object): (() => Tokenizer) => {
    const plain = JSON.parse(llama().files().get("tokenizer.json")!);
    return () =>
      new Tokenizer(
        JSON.stringify({ ...plain, ...changes, model: { ...plain.model, ...(changes as { model?: object }).model } }),
      );
  };
  const split = (behavior: string, invert = false, String = "x") => ({
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [{ type: "Split", pattern: { String }, behavior, invert }],
    },
  });

  test.each<[string, object, string]>([
    [
      "a token that must stand alone",
      { added_tokens: [{ id: 99, content: "<wug>", single_word: true }] },
      'added tokens must not be single_word, found "<wug>"',
    ],
    [
      "bytes of a Unigram model",
      { model: { type: "Unigram", byte_fallback: true, unk_id: 0, vocab: [["a", 0]] } },
      "a Unigram model must not fall back to bytes, found byte_fallback",
    ],
    ["chance", { model: { dropout: 0.1 } }, "a model must give the same ids each time, found dropout 0.1"],
    [
      "a split that joins",
      split("MergedWithNext"),
      "Split must have the behavior Removed or Isolated, found MergedWithNext",
    ],
    [
      "an inverted split that keeps",
      split("Isolated", true),
      "Split must have the behavior Removed where it is inverted, found Isolated",
    ],
    [
      "punctuation that joins",
      { pre_tokenizer: { type: "Punctuation", behavior: "MergedWithPrevious" } },
      "Punctuation must have the behavior Isolated, found MergedWithPrevious",
    ],
  ])("%s", (_, changes, message) => {
    expect(refuse(changes)).toThrow(
      expect.objectContaining({ code: "UNEXPECTED", message: `tokenizer.json: ${message}` }) as Error,
    );
  });

  test("but not a split of what the normalizer has replaced, as in Gemma's", () => {
    expect(refuse(split("MergedWithPrevious", false, " "))).not.toThrow();
    expect(refuse({ ...split("MergedWithPrevious", false, " "), normalizer: null })).toThrow("Split must have");
  });
});

test("a token that is added goes into tokenizer_config.json where that lists such tokens, and nothing else changes", () => {
  const config = `{
  "added_tokens_decoder": {
    "0": {
      "content": "▁",
      "special": false
    }
  },
  "model_max_length": 1000000000000000019884624838656,
  "note": [1,   2]
}`;
  const document = llama().files().get("tokenizer.json")!;
  const tokenizer = new Tokenizer(document, config);
  const [id] = tokenizer.addTokens([{ content: "<wug>", special: true }]);
  const written = tokenizer.files().get("tokenizer_config.json")!;
  expect(JSON.parse(written).added_tokens_decoder[id!]).toEqual({
    content: "<wug>",
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  });
  const [before, after] = config.split('"special": false\n    }');
  expect(written.startsWith(before!)).toBe(true);
  expect(written.endsWith(after!)).toBe(true);
  const plain = new Tokenizer(document, "{ }");
  plain.addTokens(["<wug>"]);
  expect(plain.files().get("tokenizer_config.json")).toBe("{ }");
});
