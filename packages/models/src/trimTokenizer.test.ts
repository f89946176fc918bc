import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { Tokenizer } from "./tokenizer.ts";

const meadow = new URL("../pretrained/meadow/", import.meta.url);
const read = (file: string): string => readFileSync(new URL(file, meadow), "utf8");
const TEXT = "The fox walks to the river. A small bird sings, and the fox listens!";

const model = (fields: object) => ({
  version: "1.0",
  added_tokens: [],
  normalizer: null,
  pre_tokenizer: { type: "Whitespace" },
  post_processor: null,
  decoder: null,
  ...fields,
});
const added = (id: number, content: string) => ({
  id,
  content,
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: false,
  special: true,
});
const build = (fields: object, config: object = {}): Tokenizer =>
  new Tokenizer(JSON.stringify(model(fields)), JSON.stringify(config));
const caught = (run: () => unknown): { name: string; message: string; ids: number[] } => {
  try {
    run();
  } catch (error) {
    return error as { name: string; message: string; ids: number[] };
  }
  throw new Error("must throw");
};

describe("A-90 a trimmed tokenizer", () => {
  test("splits text of kept tokens as before, in their new numbers (byte-level BPE)", () => {
    const tokenizer = new Tokenizer(read("tokenizer.json"), read("tokenizer_config.json"));
    tokenizer.addTokens(["<wug>"]);
    const text = `${TEXT} <wug>`;
    const ids = tokenizer.encode(text);
    const specials = [tokenizer.eosTokenId, tokenizer.bosTokenId, tokenizer.padTokenId].filter(
      (id) => id !== undefined,
    );
    const keep = tokenizer.withPieces([...specials, ...ids]).toReversed();
    const trimmed = tokenizer.trimmed(keep);
    expect(keep.length).toBeLessThan(tokenizer.vocabSize);
    expect(trimmed.vocabSize).toBe(keep.length);
    expect(trimmed.encode(text)).toEqual(ids.map((id) => keep.indexOf(id)));
    expect(trimmed.decode(trimmed.encode(text))).toBe(tokenizer.decode(ids));
    expect(trimmed.eosTokenId).toBe(
      tokenizer.eosTokenId === undefined ? undefined : keep.indexOf(tokenizer.eosTokenId),
    );
    expect(trimmed.tokenToId("<wug>")).toBe(keep.indexOf(tokenizer.tokenToId("<wug>")!));
  });

  test("keeps merges whose parts and whole are kept", () => {
    const vocab = { a: 0, b: 1, c: 2, ab: 3, abc: 4, bc: 5 };
    const tokenizer = build({ model: { type: "BPE", vocab, merges: ["a b", "ab c", "b c"] } });
    expect(tokenizer.withPieces([4])).toEqual([4, 3, 2, 0, 1]);
    const trimmed = tokenizer.trimmed([4, 3, 2, 0, 1]);
    expect(trimmed.encode("abc ab cab")).toEqual([0, 1, 2, 1]);
    const document = JSON.parse(trimmed.files().get("tokenizer.json")!) as { model: { merges: string[] } };
    expect(document.model.merges).toEqual(["a b", "ab c"]);
    expect(caught(() => tokenizer.trimmed([4, 2, 0, 1]))).toMatchObject({
      name: "VocabularyError",
      message: "trim: pieces that kept tokens are built from must be kept too, left out 3; withPieces adds them",
      ids: [3],
    });
  });

  test("renumbers WordPiece, its post-processor and the decoder of added tokens", () => {
    const vocab = { "[UNK]": 0, "[CLS]": 1, "[SEP]": 2, play: 3, "##ing": 4, "##ed": 5, red: 6 };
    const tokenizer = build(
      {
        added_tokens: [added(0, "[UNK]"), added(1, "[CLS]"), added(2, "[SEP]")],
        model: { type: "WordPiece", vocab, unk_token: "[UNK]", continuing_subword_prefix: "##" },
        post_processor: { type: "BertProcessing", sep: ["[SEP]", 2], cls: ["[CLS]", 1] },
      },
      { added_tokens_decoder: { 0: { content: "[UNK]" }, 1: { content: "[CLS]" }, 2: { content: "[SEP]" } } },
    );
    const keep = [4, 3, 2, 1, 0];
    const trimmed = tokenizer.trimmed(keep);
    expect(trimmed.encode("playing").map((id) => keep[id])).toEqual(tokenizer.encode("playing"));
    expect(trimmed.encode("red").map((id) => keep[id])).toEqual([1, 0, 2]); // [CLS] [UNK] [SEP]
    const config = JSON.parse(trimmed.files().get("tokenizer_config.json")!) as object;
    expect(config).toEqual({
      added_tokens_decoder: { 4: { content: "[UNK]" }, 3: { content: "[CLS]" }, 2: { content: "[SEP]" } },
    });
    expect(caught(() => tokenizer.trimmed([1, 2, 3])).message).toBe("trim: the unknown token (id 0) must be kept");
    expect(caught(() => tokenizer.trimmed([0, 1, 3])).message).toBe(
      "trim: a token that the post-processor adds (id 2) must be kept",
    );
  });

  test("reorders Unigram's list with its scores, and says when it cannot", () => {
    const vocab = [
      ["<unk>", 0],
      ["▁a", -1.5],
      ["b", -2],
      ["▁ab", -2.5],
    ];
    const pre_tokenizer = { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: true };
    const tokenizer = build({
      pre_tokenizer,
      added_tokens: [added(4, "<x>")],
      model: { type: "Unigram", vocab, unk_id: 0 },
    });
    const keep = [3, 0, 1, 4];
    const trimmed = tokenizer.trimmed(keep);
    const document = JSON.parse(trimmed.files().get("tokenizer.json")!) as { model: unknown };
    expect(document.model).toEqual({ type: "Unigram", vocab: [vocab[3], vocab[0], vocab[1]], unk_id: 1 });
    expect(trimmed.encode("ab a <x>").map((id) => keep[id])).toEqual(tokenizer.encode("ab a <x>"));
    expect(caught(() => tokenizer.trimmed([3, 4, 0, 1])).message).toContain("must keep its own tokens first");
  });

  test("refuses ids twice, outside, or none, and a special token left out", () => {
    const tokenizer = build(
      { model: { type: "BPE", vocab: { a: 0, b: 1, "</s>": 2 }, merges: [] } },
      { eos_token: "</s>" },
    );
    const message = (keep: number[]): string => caught(() => tokenizer.trimmed(keep)).message;
    expect(message([0, 0, 2])).toBe("trim: ids to keep must be different ones in [0, 3), got 0");
    expect(message([2, 3, -1])).toBe("trim: ids to keep must be different ones in [0, 3), got 3, -1");
    expect(message([])).toBe("trim: ids to keep must be different ones in [0, 3), got none");
    expect(message([0, 1])).toBe("trim: eos_token of tokenizer_config.json (id 2) must be kept");
  });
});
